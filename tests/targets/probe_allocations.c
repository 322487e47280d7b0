/* A program that allocates what it is told, and says exactly what it has not given back.
 *
 * Reads lines "SCENARIO N"; does it; prints "FUNCTION COUNT BYTES" for every function that has something outstanding,
 * then ".". Each function whose name begins with out_ makes its own allocations, so that its frame is in their stacks.
 */
#define _GNU_SOURCE
#ifndef WITHOUT_LIBRARIES
#include <dlfcn.h>
#endif
#include <errno.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__GLIBC__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#else /* musl-gcc does not see the kernel's headers */
struct sock_filter { uint16_t code; uint8_t jt, jf; uint32_t k; };
struct sock_fprog { unsigned short len; struct sock_filter *filter; };
#define BPF_STMT(c, v) { c, 0, 0, v }
#define BPF_JUMP(c, v, t, f) { c, t, f, v }
enum { BPF_LD = 0, BPF_W = 0, BPF_ABS = 0x20, BPF_JMP = 5, BPF_JGE = 0x30, BPF_K = 0, BPF_RET = 6 };
#define SECCOMP_RET_KILL_PROCESS 0x80000000u
#define SECCOMP_RET_ALLOW 0x7fff0000u
#define SECCOMP_MODE_FILTER 2
#endif

#define FUNCTION __attribute__((noinline, noclone))
#define KEEP(p) __asm__ volatile("" : : "r"(p) : "memory")
#define PAGE 4096ul

struct truth { const char *name; long count, bytes; };
static struct truth truths[64];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void say(const char *name, long count, long bytes)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < 64; i++) {
		if (!truths[i].name)
			truths[i].name = name;
		if (!strcmp(truths[i].name, name)) {
			truths[i].count += count;
			truths[i].bytes += bytes;
			break;
		}
	}
	pthread_mutex_unlock(&lock);
}
#define OUT(count, bytes) say(__func__, count, bytes)

FUNCTION void *out_malloc(size_t n) { void *p = malloc(n); KEEP(p); OUT(1, n); return p; }
FUNCTION void *out_calloc(size_t n) { void *p = calloc(3, n); KEEP(p); OUT(1, 3 * n); return p; }
FUNCTION void *out_posix_memalign(size_t n) { void *p = 0; if (posix_memalign(&p, 64, n)) abort(); KEEP(p); OUT(1, n); return p; }
FUNCTION void *out_aligned_alloc(size_t n) { void *p = aligned_alloc(64, n); KEEP(p); OUT(1, n); return p; }
FUNCTION void *out_strdup(const char *s) { void *p = strdup(s); KEEP(p); OUT(1, strlen(s) + 1); return p; }
FUNCTION void *out_realloc_null(size_t n) { void *p = realloc(NULL, n); KEEP(p); OUT(1, n); return p; }
#ifdef __GLIBC__
void *memalign(size_t, size_t);
void *pvalloc(size_t);
FUNCTION void *out_memalign(size_t n) { void *p = memalign(128, n); KEEP(p); OUT(1, n); return p; }
FUNCTION void *out_valloc(size_t n) { void *p = valloc(n); KEEP(p); OUT(1, n); return p; }
FUNCTION void *out_pvalloc(size_t n) { void *p = pvalloc(n); KEEP(p); OUT(1, n); return p; }
FUNCTION void *out_reallocarray(size_t n) { void *p = reallocarray(NULL, 5, n); KEEP(p); OUT(1, 5 * n); return p; }
#endif

static void family(long n)
{
	for (long i = 0; i < n; i++) {
		out_malloc(100 + i % 7);
		out_calloc(10 + i % 3);
		out_posix_memalign(200 + i % 5);
		out_aligned_alloc(64 * (1 + i % 3));
		out_strdup("forty-two characters of text to duplicate.");
		out_realloc_null(300 + i % 11);
#ifdef __GLIBC__
		out_memalign(128);
		out_reallocarray(20);
		if (i % 16 == 0) {
			out_valloc(500);
			out_pvalloc(600);
		}
#endif
	}
}

/* As much as family() takes, and gives back. */
FUNCTION void *freed_malloc(size_t n) { void *p = malloc(n); KEEP(p); return p; }
FUNCTION void *freed_calloc(size_t n) { void *p = calloc(2, n); KEEP(p); return p; }
FUNCTION void *freed_memalign(size_t n) { void *p = 0; if (posix_memalign(&p, 64, n)) abort(); KEEP(p); return p; }
static void freed(long n)
{
	for (long i = 0; i < n; i++) {
		void *a = freed_malloc(100 + i % 9), *b = freed_calloc(30), *c = freed_memalign(200);
		free(a);
		free(NULL);
		free(c);
		free(b);
	}
}

FUNCTION void *out_grown(void *p, size_t n) { p = realloc(p, n); KEEP(p); return p; }
static void *grown;
static long grown_bytes;
static void grow(long n)
{
	for (long i = 0; i < n; i++) {
		long bytes = grown_bytes + 1000;
		grown = out_grown(grown, bytes);
		say("out_grown", grown_bytes ? 0 : 1, bytes - grown_bytes);
		grown_bytes = bytes;
	}
}

/* A realloc that fails leaves the old block; one to another place takes it; one to nothing frees it. */
FUNCTION void *out_kept(size_t n) { void *p = malloc(n); KEEP(p); return p; }
FUNCTION void *out_moved(void *p, size_t n) { p = realloc(p, n); KEEP(p); return p; }
FUNCTION void *fails(void *p) { volatile size_t huge = (size_t)1 << 60; p = realloc(p, huge); KEEP(p); return p; }
static void reallocs(long n)
{
	for (long i = 0; i < n; i++) {
		void *p = out_kept(100);
		if (fails(p))
			abort();
		say("out_kept", 1, 100);
		p = out_kept(50);
		if (!out_moved(p, 70000))
			abort();
		say("out_moved", 1, 70000);
#ifdef __GLIBC__
		p = out_kept(60);
		p = realloc(p, 0);
		KEEP(p);
#endif
	}
}

FUNCTION char *out_mmap(size_t n) { char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); KEEP(p); return p; }
FUNCTION char *out_cut(size_t n) { char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); KEEP(p); return p; }
FUNCTION char *out_mremap(char *p, size_t a, size_t b) { p = mremap(p, a, b, MREMAP_MAYMOVE); KEEP(p); return p; }
static void maps(long n)
{
	for (long i = 0; i < n; i++) {
		out_mmap(10 * PAGE);
		say("out_mmap", 1, 10 * PAGE);
		char *p = out_cut(12 * PAGE);
		munmap(p, PAGE);
		munmap(p + 11 * PAGE, PAGE);
		munmap(p + 5 * PAGE, 2 * PAGE - 1);
		say("out_cut", 1, 8 * PAGE);
		p = out_mmap(4 * PAGE);
		say("out_mmap", 1, 4 * PAGE);
		p = out_mremap(p, 4 * PAGE, 100 * PAGE);
		say("out_mremap", 1, 96 * PAGE);
		p = out_cut(6 * PAGE);
		p = out_mremap(p, 6 * PAGE, 2 * PAGE);
		say("out_cut", 1, 2 * PAGE);
		p = out_mmap(7 * PAGE);
		munmap(p, 7 * PAGE);
		mmap(NULL, 50 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	}
}

FUNCTION void out_sbrk(long n) { void *p = sbrk(n); KEEP(p); }
static void heap_end(long n)
{
	for (long i = 0; i < n; i++) {
		out_sbrk(1000);
		say("out_sbrk", 1, 1000);
	}
	sbrk(0);
	out_sbrk(500);
	sbrk(-500);
}

static pthread_barrier_t barrier;
static void *work(void *n)
{
	pthread_barrier_wait(&barrier);
	for (long i = 0; i < (long)n; i++) {
		out_malloc(77);
		void *p = freed_malloc(88), *q = freed_calloc(50);
		q = realloc(q, 500);
		free(p);
		free(q);
	}
	return NULL;
}
static void threads(long n)
{
	pthread_t ids[8];
	pthread_barrier_init(&barrier, NULL, 8);
	for (int i = 0; i < 8; i++)
		pthread_create(&ids[i], NULL, work, (void *)n);
	for (int i = 0; i < 8; i++)
		pthread_join(ids[i], NULL);
}
static void *nothing(void *p) { pthread_barrier_wait(&barrier); return p; }
/* Many threads at once: their stacks are no leak of ours. */
static void crowd(long n)
{
	pthread_t *ids = calloc(n, sizeof(*ids));
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	pthread_barrier_init(&barrier, NULL, n + 1);
	long made = 0;
	for (; made < n; made++)
		if (pthread_create(&ids[made], &attr, nothing, NULL))
			exit(9);
	pthread_barrier_wait(&barrier);
	for (long i = 0; i < made; i++)
		pthread_join(ids[i], NULL);
	free(ids);
}

/* Sizes of all kinds, half of them given back: for sampling. */
FUNCTION void *out_mixed(size_t n) { void *p = malloc(n); KEEP(p); return p; }
static void mixed(long n)
{
	uint32_t random = 12345;
	for (long i = 0; i < n; i++) {
		random = random * 1664525 + 1013904223;
		size_t size = 16 + (random >> 16) % 2000;
		void *p = out_mixed(size);
		if (random >> 31)
			free(p);
		else
			say("out_mixed", 1, size);
	}
}

/* Nobody's frame pointer: random, then back. */
FUNCTION void *out_corrupt(size_t n)
{
	void *p;
#if defined(__x86_64__)
	static uint64_t random = 88172645463325252ull;
	random ^= random << 13; random ^= random >> 7; random ^= random << 17;
	__asm__ volatile("push %%rbp\n\tmov %2, %%rbp\n\tmov %1, %%rdi\n\tpush %%rbp\n\tcall *%3\n\tpop %%rbp\n\tpop %%rbp\n\t"
			 : "=a"(p) : "r"(n), "r"(random & 0x7fffffffffffull), "r"((void *(*)(size_t))malloc)
			 : "rdi", "rsi", "rdx", "rcx", "r8", "r9", "r10", "r11", "memory", "cc");
#else
	p = malloc(n);
#endif
	OUT(1, n);
	return p;
}
static void corrupt(long n) { for (long i = 0; i < n; i++) out_corrupt(50); }

static void child(long n)
{
	pid_t pid = fork();
	if (!pid) {
		/* Time for the probes to come. */
		usleep(500000);
		for (long i = 0; i < n; i++)
			out_malloc(123);
		usleep(1500000);
		_exit(0);
	}
	say("child", 1, pid);
}

#ifdef WITHOUT_LIBRARIES
static void library(long n) { (void)n; }
#else
static void library(long n)
{
	void *handle = dlopen(getenv("PROBE_LIBRARY"), RTLD_NOW);
	if (!handle)
		exit(8);
	usleep(700000);
	void (*allocate)(long) = (void (*)(long))dlsym(handle, "out_of_library");
	for (long i = 0; i < n; i++)
		allocate(64);
	say("out_of_library", n, 64 * n);
}
#endif

FUNCTION void *out_paused(size_t n) { void *p = malloc(n); KEEP(p); OUT(1, n); return p; }
static void paused(long n) { for (long i = 0; i < n; i++) out_paused(40); }

/* Frees all that the last call of it took, and takes as many as are asked for. */
/* What was kept last time moves to larger blocks; nothing new is taken, and those of the time before that are freed. */
FUNCTION void *out_enlarged(void *p, size_t n) { p = realloc(p, n); KEEP(p); return p; }
static void enlarged(long n)
{
	static void *held[1000];
	static size_t size = 40;
	static long n_held;

	for (long i = 0; i < n_held; i++)
		held[i] = out_enlarged(held[i], size);
	for (; n_held < n && n_held < 1000; n_held++)
		held[n_held] = out_enlarged(NULL, size);
	size *= 10;
	if (!n)
		while (n_held)
			free(held[--n_held]);
}

FUNCTION void *out_replaced(size_t n) { void *p = malloc(n); KEEP(p); return p; }
static void replaced(long n)
{
	static void *held[1000];
	static long n_held;

	while (n_held)
		free(held[--n_held]);
	while (n_held < n && n_held < 1000)
		held[n_held++] = out_replaced(40);
}

/* Pages that are written to, and as many that are only read. */
FUNCTION void out_touched(volatile char *p, long n) { for (long i = 0; i < n; i++) p[i * PAGE] = 1; }
FUNCTION long only_read(volatile char *p, long n) { long sum = 0; for (long i = 0; i < n; i++) sum += p[i * PAGE]; return sum; }
static void touch(long n)
{
	char *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *q = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* One at a time, not by 2 MiB. */
	madvise(p, n * PAGE, MADV_NOHUGEPAGE);
	madvise(q, n * PAGE, MADV_NOHUGEPAGE);
	out_touched(p, n);
	if (only_read(q, n))
		exit(7);
	munmap(p, n * PAGE);
	munmap(q, n * PAGE);
}

static void churn(long n)
{
	for (long i = 0; i < n; i++) {
		char *p = out_mmap(PAGE);
		munmap(p, PAGE);
	}
}

/* From now on a filter allows the system calls there are, as sandboxes do, and no others. */
static void seccomp(long n)
{
	(void)n;
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 335, 0, 2),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 424, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		exit(6);
}

static struct { const char *name; void (*run)(long); } scenarios[] = {
	{ "family", family }, { "freed", freed }, { "grow", grow }, { "reallocs", reallocs }, { "maps", maps },
	{ "heap_end", heap_end }, { "threads", threads }, { "crowd", crowd }, { "mixed", mixed }, { "corrupt", corrupt },
	{ "child", child }, { "library", library }, { "paused", paused }, { "replaced", replaced },
	{ "enlarged", enlarged },
	{ "touch", touch }, { "seccomp", seccomp }, { "churn", churn },
};

int main(int argc, char **argv)
{
	char line[128], name[64];
	long n;
	static char in[4096], out[4096];
	setvbuf(stdin, in, _IOLBF, sizeof(in));
	setvbuf(stdout, out, _IOFBF, sizeof(out));
	while (fgets(line, sizeof(line), stdin) && sscanf(line, "%60s %ld", name, &n) == 2) {
		if (!strcmp(name, "exec")) {
			char *again[] = { argv[0], NULL };
			execv("/proc/self/exe", again);
		}
		for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
			if (!strcmp(scenarios[i].name, name))
				scenarios[i].run(n);
		for (int i = 0; i < 64 && truths[i].name; i++)
			printf("%s %ld %ld\n", truths[i].name, truths[i].count, truths[i].bytes);
		puts(".");
		fflush(stdout);
	}
	return argc == 0;
}
