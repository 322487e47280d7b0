/* A labelled program to profile: three functions that burn 70, 20 and 10 percent of its CPU time.
 *
 * Build: gcc -O1 -fno-omit-frame-pointer -fno-inline -o burn burn.c
 * Use:   burn [seconds]      (default: until killed)
 *
 * The split is exact by construction: each turn runs the same loop 7, 2 and 1 times, each from its own function. Turns
 * are short (some 0.2 ms), so that two samples are not of the same one, and of random length: equal ones beat with a
 * sampler of a like period, which then sees one function only for seconds. */
#include <stdlib.h>
#include <time.h>

static unsigned long state = 1;

/* One definition per label, so that the loop itself is no frame of its own. noclone: the compiler would make
 * burn_seventy.constprop.0 of it. A chain of multiplications takes the same time wherever it lies; a sum in memory
 * took twice as long in one of the three functions, by the alignment of its loop. */
#define BURNER(name)                                                       \
	__attribute__((noinline, noclone)) static void name(unsigned long n) \
	{                                                                  \
		unsigned long x = state;                                   \
                                                                           \
		for (unsigned long i = 0; i < n; i++) {                    \
			x *= 6364136223846793005UL;                        \
			__asm__ volatile("" : "+r"(x));                    \
		}                                                          \
		state = x;                                                 \
	}

BURNER(burn_seventy)
BURNER(burn_twenty)
BURNER(burn_ten)

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	double end_s = argc > 1 ? now_s() + atof(argv[1]) : 0;

	do {
		unsigned long n = 2000 + rand() % 18000;

		burn_seventy(7 * n);
		burn_twenty(2 * n);
		burn_ten(n);
	} while (!end_s || now_s() < end_s);
	return 0;
}
