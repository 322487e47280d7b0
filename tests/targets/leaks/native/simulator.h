/* What every kind of the native simulators has at hand: pace, account of the truth, background work.
 *
 * A kind is three functions: `start` once, `step` some hundred times a second, and `finish` never needed (the truth is
 * counted as it happens). Memory that nobody will ever give back is told to leaked(), memory that is kept on purpose and
 * within a bound to held(). */
#ifndef SIMULATOR_H
#define SIMULATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A function that must be a frame of its own: not inlined, not cloned, and its calls are no jumps (Makefile flags). */
#define SITE __attribute__((noinline, noclone))
#define KIB ((size_t)1024)
#define MIB ((size_t)1024 * 1024)

struct kind {
	const char *name;
	void (*start)(void);      /* may be NULL */
	void (*step)(void);       /* may be NULL: background work only */
	unsigned churn_per_s;     /* background malloc+free pairs; 0: the default */
	bool leaks;
};

/* The table of the program; ends with a kind without a name. */
extern const struct kind kinds[];

double elapsed_s(void);                 /* since the start of the simulation */
double rate_bytes_per_s(void);          /* --leak-rate */
bool stopping(void);                    /* duration over or SIGTERM */
void stop_now(void);                    /* the program ends by itself, before its time */
void nap_ms(double ms);

size_t owed(void);                      /* bytes that the rate asks for and that have not leaked yet */
size_t owed_by_part(unsigned n_parts);  /* the same for one of several threads */
void leaked(size_t bytes);              /* one block that nobody gives back */
void held(long bytes);                  /* kept within a bound, or given back when negative */
long held_bytes(void);
void worked(unsigned long n);           /* the work counter: what a watcher slows down */

uint64_t draw(void);                    /* per thread, from --seed */
size_t between(size_t low, size_t high);
double draw_exponential(double mean);

void forget(void *block);               /* lose the only pointer, in a way the compiler cannot see through */
void remember(void *block);             /* keep it reachable for ever: a global list, without memory of its own */
void *fill(void *block, size_t bytes);  /* touch all of it; ends the program when block is NULL */
const char *text_of(size_t length);     /* some string of this length, per thread, until the next call */

void churn(unsigned n_pairs);           /* background work of the calling thread: n_pairs of malloc and free */
void end_churn(void);                   /* before the calling thread ends: what it still holds goes back */
void start_thread(void *(*body)(void *), void *argument);  /* detached, ends the program when it cannot */
int fork_child(void);                   /* fork(2); the child dies with its parent and is stopped at the end */
void watch_this(int pid);               /* say that the process to look at is another one */
void fail(const char *what) __attribute__((noreturn));
extern char **simulator_argv;

#ifdef __cplusplus
}
#endif
#endif
