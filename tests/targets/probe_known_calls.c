/* Calls functions by name, a known number of times with known arguments, from its section "known".
 *
 * Prints where that section is. Then, for each line "NAME N A B C D E F" on standard input, calls NAME N times from a
 * new thread and prints what an observer of these calls must add up: calls, the first three arguments, the results.
 * An argument is a number (plus the number of the call, when a + follows it), or
 *     p  a new block of 128 bytes, aligned to 64     s  the address of a variable
 *     m  a new mapping of four pages                 k  the end of the heap
 * Prints 0 calls for a name that it does not know.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KNOWN __attribute__((noinline, section("known")))
#define ARGUMENTS 6

typedef unsigned long word;
typedef word (*function)(word, word, word, word, word, word);

extern char __start_known[], __stop_known[];

static const struct {
	const char *name;
	void *function;
} functions[] = {
	{ "malloc", malloc },
	{ "calloc", calloc },
	{ "realloc", realloc },
	{ "reallocarray", reallocarray },
	{ "posix_memalign", posix_memalign },
	{ "aligned_alloc", aligned_alloc },
	{ "memalign", memalign },
	{ "valloc", valloc },
#ifdef HAS_PVALLOC
	{ "pvalloc", pvalloc },
#endif
	{ "free", free },
	{ "mmap", mmap },
	{ "munmap", munmap },
	{ "mremap", mremap },
	{ "brk", brk },
	{ "sbrk", sbrk },
};

static struct request {
	char name[64];
	int n;
	char arguments[ARGUMENTS][24];
	word sums[3], result;
	function called;
} request;

static function find(const char *name)
{
	for (unsigned i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
		if (!strcmp(functions[i].name, name))
			return (function)functions[i].function;
#ifdef DYNAMIC
	return (function)dlsym(RTLD_DEFAULT, name);
#else
	return NULL;
#endif
}

static word argument(const char *text, int call)
{
	static void *slot;

	switch (*text) {
	case 'p':
		return (word)aligned_alloc(64, 128);
	case 's':
		return (word)&slot;
	case 'm':
		return (word)mmap(NULL, 4 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	case 'k':
		return (word)sbrk(0);
	default:
		return strtoul(text, NULL, 0) + (strchr(text, '+') ? call : 0);
	}
}

KNOWN static word call(function called, const word *with)
{
	word result = called(with[0], with[1], with[2], with[3], with[4], with[5]);

	__asm__ volatile("" ::: "memory"); /* so that the call is no jump */
	return result;
}

static void *answer(void *unused)
{
	(void)unused;
	for (int i = 0; i < request.n; i++) {
		word with[ARGUMENTS];

		for (int k = 0; k < ARGUMENTS; k++)
			with[k] = argument(request.arguments[k], i);
		for (int k = 0; k < 3; k++)
			request.sums[k] += with[k];
		request.result += call(request.called, with);
	}
	return NULL;
}

int main(void)
{
	char line[256];

	printf("[%lu, %lu]\n", (word)__start_known, (word)__stop_known);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		char(*a)[24] = request.arguments;
		pthread_t thread;

		memset(&request, 0, sizeof(request));
		if (sscanf(line, "%63s %d %23s %23s %23s %23s %23s %23s", request.name, &request.n, a[0], a[1], a[2], a[3],
			   a[4], a[5]) != 2 + ARGUMENTS)
			return 2;
		request.called = find(request.name);
		if (!request.called)
			request.n = 0;
		if (pthread_create(&thread, NULL, answer, NULL))
			return 1;
		pthread_join(thread, NULL);
		printf("[%d, %lu, %lu, %lu, %lu]\n", request.n, request.sums[0], request.sums[1], request.sums[2],
		       request.result);
		fflush(stdout);
	}
	return 0;
}
