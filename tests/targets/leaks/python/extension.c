/* A Python extension module whose parser forgets its buffer. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string.h>

__attribute__((noinline, noclone)) static char *site_extension(Py_ssize_t size)
{
	char *buffer = PyMem_RawMalloc((size_t)size);

	if (buffer)
		memset(buffer, 1, (size_t)size);
	return buffer;
}

static PyObject *parse(PyObject *self, PyObject *arguments)
{
	Py_ssize_t size;
	char *buffer;

	(void)self;
	if (!PyArg_ParseTuple(arguments, "n", &size))
		return NULL;
	buffer = site_extension(size);
	if (!buffer)
		return PyErr_NoMemory();
	return PyLong_FromLong(buffer[0]);
}

static PyMethodDef methods[] = {
	{ "parse", parse, METH_VARARGS, "Parse so many bytes." },
	{ 0 },
};
static struct PyModuleDef module = { PyModuleDef_HEAD_INIT, .m_name = "simulator_extension", .m_methods = methods };

PyMODINIT_FUNC PyInit_simulator_extension(void)
{
	return PyModule_Create(&module);
}
