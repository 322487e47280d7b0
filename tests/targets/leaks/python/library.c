/* A C library that a Python program calls through ctypes. */
#include <stdlib.h>
#include <string.h>

void site_ctypes(size_t size);

__attribute__((noinline)) void site_ctypes(size_t size)
{
	void *block = malloc(size);

	if (block)
		memset(block, 1, size);
	__asm__ volatile("" : : "r"(block) : "memory");
}
