/* memory_leak_simulator, native: options, pace, background work and the account of the truth.
 *
 * Prints {"ready": ..., "pid": ...} when it runs and one line of truth when it ends (by --duration or SIGTERM).
 * Dies with its parent, and refuses to hold more than 2 GB. */
#define _GNU_SOURCE
#include "simulator.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_BYTES (2048.0 * MIB)
#define DEFAULT_CHURN_PER_S 3000
#define TICK_MS 10
#define WARM_UP_PAIRS 400000   /* as after two minutes; with 4,000 the heap grew by 1 MB in the first minute */
#define N_SHORT 1024    /* blocks that live for a fraction of a second */
#define N_LONG 64       /* and some that live for seconds */

char **simulator_argv;

static struct {
	const struct kind *kind;
	double rate, duration_s, started_s, cpu_before_s;
	uint64_t seed;
	unsigned churn_per_s;
	int watched_pid, child_pid;
} sim = { .rate = 1.0 * MIB, .duration_s = 60, .seed = 1 };

/* Shared with children of the simulation, which add to the same account. */
static struct {
	_Atomic long leaked_bytes, leaked_blocks, held_bytes;
	_Atomic unsigned long work;
} *truth;

static volatile sig_atomic_t asked_to_stop;
static _Atomic(void **) remembered;

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

double elapsed_s(void) { return now_s() - sim.started_s; }
double rate_bytes_per_s(void) { return sim.rate; }
bool stopping(void) { return asked_to_stop || elapsed_s() >= sim.duration_s; }
void stop_now(void) { asked_to_stop = 1; }
void watch_this(int pid) { sim.watched_pid = pid; }
long held_bytes(void) { return truth->held_bytes; }
void held(long bytes) { truth->held_bytes += bytes; }
void worked(unsigned long n) { truth->work += n; }

void fail(const char *what)
{
	fprintf(stderr, "memory_leak_simulator: %s\n", what);
	_exit(2);
}

void nap_ms(double ms)
{
	struct timespec t = { (time_t)(ms / 1000), (long)(fmod(ms, 1000) * 1e6) };

	nanosleep(&t, NULL);
}

size_t owed(void)
{
	double due = sim.rate * elapsed_s() - truth->leaked_bytes;

	return due > 0 ? (size_t)due : 0;
}

size_t owed_by_part(unsigned n_parts)
{
	static _Thread_local double given;
	double due = sim.rate / n_parts * elapsed_s() - given;

	if (due < 4096)
		return 0;
	given += due;
	return (size_t)due;
}

void leaked(size_t bytes)
{
	truth->leaked_bytes += bytes;
	truth->leaked_blocks++;
	if (truth->leaked_bytes + truth->held_bytes > (long)LIMIT_BYTES)
		fail("would hold more than 2 GB; stopped");
}

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016. */
uint64_t draw(void)
{
	static _Atomic uint64_t n_threads;
	static _Thread_local uint64_t state;

	if (!state)
		state = (sim.seed + 1) * 0x9e3779b97f4a7c15u + ++n_threads * 0xbf58476d1ce4e5b9u;
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1du;
}

size_t between(size_t low, size_t high) { return low + draw() % (high - low + 1); }
double draw_exponential(double mean) { return -mean * log1p(-0x1p-53 * (double)(draw() >> 11)); }

void forget(void *block)
{
	__asm__ volatile("" : : "r"(block) : "memory");
}

void remember(void *block)
{
	void **link = block;
	void **first = remembered;

	do
		*link = first;
	while (!atomic_compare_exchange_weak(&remembered, &first, link));
}

void *fill(void *block, size_t bytes)
{
	if (!block)
		fail("no memory");
	memset(block, 0x5a, bytes);
	return block;
}

const char *text_of(size_t length)
{
	static _Thread_local char text[16 * 1024];

	if (length >= sizeof(text))
		length = sizeof(text) - 1;
	memset(text, 'a' + draw() % 26, length);
	text[length] = 0;
	return text;
}

/* Background work: requests of several types, each with a stack of its own; none of them keeps anything for long. */
#define REQUEST(name, low, high)                                              \
	SITE static void *name(void)                                          \
	{                                                                     \
		size_t size = between(low, high);                             \
		char *block = malloc(size);                                   \
                                                                              \
		if (!block)                                                   \
			fail("no memory");                                    \
		memset(block, 1, size < 64 ? size : 64);                      \
		return block;                                                 \
	}

REQUEST(request_login, 16, 128)
REQUEST(request_search, 100, 1500)
REQUEST(request_listing, 1000, 6000)
REQUEST(request_picture, 4000, 40000)
REQUEST(request_ping, 8, 48)
REQUEST(request_order, 64, 700)

SITE static void *any_request(void)
{
	switch (draw() % 16) {
	case 0: return request_picture();
	case 1: case 2: return request_listing();
	case 3: case 4: case 5: return request_search();
	case 6: case 7: case 8: return request_order();
	case 9: case 10: case 11: return request_login();
	default: return request_ping();
	}
}

static _Thread_local struct {
	void *briefly[N_SHORT], *longer[N_LONG];
	unsigned n;
} blocks;

SITE void churn(unsigned n_pairs)
{
	for (unsigned i = 0; i < n_pairs; i++) {
		bool longer = blocks.n++ % 128 == 0;
		void **slot = longer ? &blocks.longer[draw() % N_LONG] : &blocks.briefly[draw() % N_SHORT];

		free(*slot);
		*slot = any_request();
	}
	worked(n_pairs);
}

void end_churn(void)
{
	for (unsigned i = 0; i < N_SHORT; i++)
		free(blocks.briefly[i]);
	for (unsigned i = 0; i < N_LONG; i++)
		free(blocks.longer[i]);
	memset(&blocks, 0, sizeof(blocks));
}

void start_thread(void *(*body)(void *), void *argument)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, body, argument) || pthread_detach(thread))
		fail("cannot start a thread");
}

int fork_child(void)
{
	int parent = getpid(), pid = fork();

	if (pid < 0)
		fail("cannot fork");
	if (pid) {
		sim.child_pid = pid;
		return pid;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	return 0;
}

static void stop_child(void)
{
	if (!sim.child_pid)
		return;
	kill(sim.child_pid, SIGTERM);
	while (waitpid(sim.child_pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static long anonymous_bytes(void)
{
	char line[256];
	long kib = 0;
	FILE *status = fopen("/proc/self/status", "r");

	while (status && fgets(line, sizeof(line), status))
		if (sscanf(line, "RssAnon: %ld", &kib) == 1)
			break;
	if (status)
		fclose(status);
	return kib * 1024;
}

static double cpu_s(int who)
{
	struct rusage used;

	getrusage(who, &used);
	return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void tell_truth(void)
{
	printf("{\"kind\": \"%s\", \"leaks\": %s, \"leaked_bytes\": %ld, \"leaked_blocks\": %ld, \"held_bytes\": %ld, "
	       "\"work\": %lu, \"cpu_s\": %.3f, \"wall_s\": %.3f, \"anon_bytes\": %ld}\n",
	       sim.kind->name, sim.kind->leaks ? "true" : "false", truth->leaked_bytes, truth->leaked_blocks,
	       truth->held_bytes, truth->work, cpu_s(RUSAGE_SELF) + cpu_s(RUSAGE_CHILDREN) - sim.cpu_before_s, elapsed_s(),
	       anonymous_bytes());
	fflush(stdout);
}

static void ask_to_stop(int signal) { (void)signal; asked_to_stop = 1; }

SITE static void serve(void)
{
	double done = elapsed_s() * sim.churn_per_s;

	while (!stopping()) {
		double due = elapsed_s() * sim.churn_per_s - done;

		if (due > sim.churn_per_s / 10.0) {   /* a watcher slows us down: what was missed is not caught up */
			done += due - sim.churn_per_s / 10.0;
			due = sim.churn_per_s / 10.0;
		}
		churn((unsigned)due);
		done += (unsigned)due;
		if (sim.kind->step)
			sim.kind->step();
		nap_ms(TICK_MS);
	}
}

static double rate_of(const char *text)
{
	static const struct { const char *unit; double bytes; } units[] = {
		{ "GB", 1e9 }, { "MB", 1e6 }, { "KB", 1e3 }, { "kB", 1e3 }, { "B", 1 }, { "", 1 },
	};
	char *rest;
	double number = strtod(text, &rest);

	for (size_t i = 0; i < sizeof(units) / sizeof(*units) && rest != text; i++) {
		size_t length = strlen(units[i].unit);
		int n_seconds = 1, used = 0;

		if (strncmp(rest, units[i].unit, length))
			continue;
		rest += length;
		if (!*rest || !strcmp(rest, "/s"))
			return number * units[i].bytes;
		if (sscanf(rest, "/%dmin%n", &n_seconds, &used) == 1 && !rest[used] && n_seconds > 0)
			return number * units[i].bytes / (60.0 * n_seconds);
		break;
	}
	fail("--leak-rate wants a number and a unit, like 10MB/s or 5MB/5min");
}

static const struct kind *kind_of(const char *name)
{
	for (const struct kind *kind = kinds; kind->name; kind++)
		if (!strcmp(kind->name, name))
			return kind;
	fail("this program has no such --kind; --list prints those it has");
}

static void read_options(int argc, char **argv)
{
	for (int i = 1; i < argc; i += 2) {
		if (!strcmp(argv[i], "--list")) {
			for (const struct kind *kind = kinds; kind->name; kind++)
				printf("%s %s\n", kind->name, kind->leaks ? "leaks" : "healthy");
			exit(0);
		}
		if (i + 1 == argc)
			fail("an option wants a value");
		if (!strcmp(argv[i], "--kind"))
			sim.kind = kind_of(argv[i + 1]);
		else if (!strcmp(argv[i], "--leak-rate"))
			sim.rate = rate_of(argv[i + 1]);
		else if (!strcmp(argv[i], "--duration"))
			sim.duration_s = atof(argv[i + 1]);
		else if (!strcmp(argv[i], "--seed"))
			sim.seed = strtoull(argv[i + 1], NULL, 10);
		else if (!strcmp(argv[i], "--churn"))
			sim.churn_per_s = atoi(argv[i + 1]);
		else
			fail("options: --kind K --leak-rate 10MB/s --duration S --seed N --churn PAIRS_PER_S --list");
	}
	if (!sim.kind)
		fail("--kind is missing");
	if (!(sim.rate >= 0) || !(sim.duration_s > 0))
		fail("--leak-rate and --duration must be positive");
	if (sim.kind->leaks && sim.rate * sim.duration_s > LIMIT_BYTES)
		fail("this rate would leak more than 2 GB in this duration");
	if (!sim.churn_per_s)
		sim.churn_per_s = sim.kind->churn_per_s ? sim.kind->churn_per_s : DEFAULT_CHURN_PER_S;
}

int main(int argc, char **argv)
{
	struct sigaction on_term = { .sa_handler = ask_to_stop };

	simulator_argv = argv;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	read_options(argc, argv);
	sigaction(SIGTERM, &on_term, NULL);
	sigaction(SIGINT, &on_term, NULL);
	truth = mmap(NULL, sizeof(*truth), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (truth == MAP_FAILED)
		fail("no memory");
	churn(WARM_UP_PAIRS);   /* the heap of the background has its shape before anybody looks */
	truth->work = 0;
	sim.cpu_before_s = cpu_s(RUSAGE_SELF);
	sim.started_s = now_s();
	sim.watched_pid = getpid();
	if (sim.kind->start)
		sim.kind->start();
	printf("{\"ready\": true, \"pid\": %d}\n", sim.watched_pid);
	fflush(stdout);
	serve();
	stop_child();
	tell_truth();
	_exit(0);   /* threads of the simulation still run */
}
