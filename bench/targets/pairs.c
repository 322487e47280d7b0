/* Times malloc and free in pairs, ten frames deep, when told to.
 *
 * Reads lines "LOW HIGH SECONDS" and answers each with nanoseconds per pair of blocks of LOW..HIGH bytes. The first
 * byte of each block is written. Build: gcc -O2 -g -fno-omit-frame-pointer -fno-optimize-sibling-calls. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>

#define N_BATCH 500

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

__attribute__((noinline, noclone)) static void allocate_in_pairs(size_t low, size_t high)
{
	static unsigned long state = 1;

	for (int i = 0; i < N_BATCH; i++) {
		volatile char *block;

		state = state * 6364136223846793005UL + 1442695040888963407UL;
		block = malloc(low + (state >> 33) % (high - low + 1));
		if (!block)
			exit(1);
		*block = 1;
		free((void *)block);
	}
}

__attribute__((noinline, noclone)) static void descend(int depth, size_t low, size_t high)
{
	if (depth)
		descend(depth - 1, low, high);
	else
		allocate_in_pairs(low, high);
	__asm__ volatile("");
}

int main(void)
{
	size_t low, high;
	double seconds;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (scanf("%zu %zu %lf", &low, &high, &seconds) == 3) {
		double began_s = now_s(), at_s;
		unsigned long n = 0;

		do {
			descend(8, low, high);
			n += N_BATCH;
		} while ((at_s = now_s()) < began_s + seconds);
		printf("%.2f\n", (at_s - began_s) * 1e9 / (double)n);
		fflush(stdout);
	}
	return 0;
}
