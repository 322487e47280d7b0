// A C++ program, compiled with frame pointers, that allocates through libraries which have none.
//
// For each line it reads, every function out_... calls the library 100 times and keeps what it gives; then it says ".".
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#define FUNCTION extern "C" __attribute__((noinline, noclone))
static void keep(void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

FUNCTION void out_new() { keep(new int[25]); }
FUNCTION void out_string(int i) { auto *s = new std::string(); s->append(100 + i % 10, 'x'); keep(s); }
FUNCTION void out_vector() { auto *v = new std::vector<int>(); for (int i = 0; i < 100; i++) v->push_back(i); keep(v); }
FUNCTION void out_map()
{
	auto *m = new std::map<int, std::string>();
	for (int i = 0; i < 10; i++)
		(*m)[i] = "a string too long to be kept inside";
	keep(m);
}
FUNCTION void out_getline()
{
	FILE *f = fopen("/proc/self/status", "r");
	char *line = nullptr;
	size_t n = 0;
	if (!f || getline(&line, &n, f) < 0)
		abort();
	keep(line);
	fclose(f);
}
FUNCTION void out_fopen() { FILE *f = fopen("/proc/self/status", "r"); keep(f); }
FUNCTION void out_stream(int i)
{
	std::ostringstream o;
	o << "some text " << i << " that is long enough to be allocated " << i * 3.5;
	keep(new std::string(o.str()));
}
FUNCTION void out_asprintf(int i) { char *p; if (asprintf(&p, "%d %s", i, "text") < 0) abort(); keep(p); }
FUNCTION void out_strdup() { keep(strdup("a text that is copied")); }

int main()
{
	static char line[128], in[4096], out[4096];
	setvbuf(stdin, in, _IOLBF, sizeof(in));
	setvbuf(stdout, out, _IOFBF, sizeof(out));
	while (fgets(line, sizeof(line), stdin)) {
		for (int i = 0; i < 100 && line[0] != 'n'; i++) {
			out_new();
			out_string(i);
			out_vector();
			out_map();
			out_getline();
			out_fopen();
			out_stream(i);
			out_asprintf(i);
			out_strdup();
		}
		puts(".");
		fflush(stdout);
	}
}
