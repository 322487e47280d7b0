// A stack 20 frames deep, through virtual calls of functions with frames of different sizes, which calls one function
// as often as it is told and says what that took; or burns its CPU there, with 4 MB of data.
//   deep calls N   prints nanoseconds per call, for each line it reads
//   deep burn      until it is killed
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

static long n_calls;
static uint64_t *data;
static const long WORDS = 1 << 19;

// Begins with an instruction that the kernel does for the program; others it lets it single-step, at ten times the cost.
extern "C" __attribute__((noinline, noclone)) void probed(long n) { __asm__ volatile("nop" : : "r"(n) : "memory"); }

struct Node {
	virtual long visit(int depth, long x) = 0;
	virtual ~Node() {}
};

template <int SIZE> struct Sized : Node {
	__attribute__((noinline, noclone)) long visit(int depth, long x) override;
};

static Node *nodes[4];

__attribute__((noinline, noclone)) static long burn(long x)
{
	for (long i = 0; i < 2000; i++) {
		x = x * 6364136223846793005 + 1442695040888963407;
		data[(uint64_t)x % WORDS] += x;
	}
	return x;
}

template <int SIZE> long Sized<SIZE>::visit(int depth, long x)
{
	volatile char local[SIZE];

	local[x & 7] = depth;
	if (depth > 0)
		return nodes[depth & 3]->visit(depth - 1, x + 1) + local[x & 7];
	if (data)
		return burn(x);
	for (long i = 0; i < n_calls; i++)
		probed(i);
	return local[x & 7];
}

int main(int argc, char **argv)
{
	char line[16];

	nodes[0] = new Sized<16>;
	nodes[1] = new Sized<48>;
	nodes[2] = new Sized<104>;
	nodes[3] = new Sized<24>;
	if (argc > 1 && !strcmp(argv[1], "burn")) {
		data = new uint64_t[WORDS]();
		for (long x = 1;;)
			x = nodes[0]->visit(15, x);
	}
	n_calls = atol(argv[2]);
	while (fgets(line, sizeof(line), stdin)) {
		timespec begin, end;

		clock_gettime(CLOCK_MONOTONIC, &begin);
		nodes[0]->visit(15, 1);
		clock_gettime(CLOCK_MONOTONIC, &end);
		printf("%f\n", ((end.tv_sec - begin.tv_sec) * 1e9 + end.tv_nsec - begin.tv_nsec) / n_calls);
		fflush(stdout);
	}
	return 0;
}
