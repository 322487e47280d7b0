// Programs that do to themselves what makes a profiler lose names: exec, fork, a pid that comes again, a library that is
// loaded late, deep recursion. Without frame pointers. Built by tests/host/agent/conftest.py.
//
// Use: lives MODE [SECONDS | LIBRARY]
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <dlfcn.h>
#include <linux/sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPAQUE __attribute__((noinline, noclone))
#define NO_TAIL_CALL __asm__ volatile("" ::: "memory")

static volatile unsigned long state = 1;

static double now_s()
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

#define BURNER(name)                                                \
	OPAQUE void name(double seconds)                            \
	{                                                           \
		for (double end_s = now_s() + seconds; now_s() < end_s;) \
			for (int i = 0; i < 100000; i++)            \
				state = state * 6364136223846793005UL + i; \
		NO_TAIL_CALL;                                       \
	}

BURNER(burn_before)
BURNER(burn_after)

struct Node {
	virtual ~Node() {}
	virtual long descend(int n, double x);
};

// Frames of different sizes, through virtual functions.
OPAQUE long Node::descend(int n, double x)
{
	Node other;
	char local[64 + 8];

	snprintf(local, sizeof(local), "%d", n);
	if (n <= 0) {
		for (int i = 0; i < 300000; i++)
			state = state * 6364136223846793005UL + i;
		return local[0];
	}
	long result = other.descend(n - 1, x + local[0]);
	NO_TAIL_CALL;
	return result + local[1];
}

static int run_again(const char *mode)
{
	execl("/proc/self/exe", "lives", mode, "0.8", nullptr);
	return 1;
}

// A child that has the pid of one that ended.
static int bear_again(int pid)
{
	pid_t wanted = pid;
	struct clone_args args;

	memset(&args, 0, sizeof(args));
	args.exit_signal = SIGCHLD;
	args.set_tid = (unsigned long)&wanted;
	args.set_tid_size = 1;
	long child = syscall(SYS_clone3, &args, sizeof(args));
	if (!child)
		_exit(run_again("after"));
	return child == pid && waitpid(pid, nullptr, 0) == pid ? 0 : 1;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	double seconds = argc > 2 ? atof(argv[2]) : 0.8;

	if (!strcmp(mode, "deep")) {
		Node node;

		for (double end_s = now_s() + seconds; now_s() < end_s;)
			node.descend(10 + rand() % 30, 1.0);
	} else if (!strcmp(mode, "count")) {
		// Keeps in a file how much it did, and in how much CPU time.
		Node node;
		char fresh[4096];

		snprintf(fresh, sizeof(fresh), "%s.new", argv[2]);

		for (long n = 0;; n++) {
			node.descend(10 + rand() % 30, 1.0);
			if (n % 1000)
				continue;
			FILE *file = fopen(fresh, "w");
			fprintf(file, "%ld %f\n", n, now_s());
			fclose(file);
			rename(fresh, argv[2]);
		}
	} else if (!strcmp(mode, "after")) {
		burn_after(seconds);
	} else if (!strcmp(mode, "exec")) {
		burn_before(0.8);
		return run_again("after");
	} else if (!strcmp(mode, "fork")) {
		int child = fork();

		if (!child) {
			burn_after(0.8);
			_exit(0);
		}
		waitpid(child, nullptr, 0);
	} else if (!strcmp(mode, "reborn")) {
		int child = fork();

		if (!child) {
			burn_before(0.8);
			_exit(0);
		}
		printf("%d\n", child);
		fflush(stdout);
		waitpid(child, nullptr, 0);
		return bear_again(child);
	} else if (!strcmp(mode, "library")) {
		burn_before(0.8);
		void *library = dlopen(argv[2], RTLD_NOW);
		((void (*)(double))dlsym(library, "burn_in_library"))(2.5);
	}
	return 0;
}

#ifdef LIBRARY
extern "C" {
BURNER(burn_in_library)
}
#endif
