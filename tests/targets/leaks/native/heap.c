/* Leaks of the malloc family, of mappings, and what makes them hard to see. */
#define _GNU_SOURCE
#include "kinds.h"
#include "simulator.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A kind that leaks blocks of low..high bytes, evenly by the rate, from one function: site_NAME. */
#define LEAK_AT_RATE(name, low, high, allocate)                                  \
	SITE static void site_##name(size_t size)                                \
	{                                                                        \
		void *block = NULL;                                              \
		allocate;                                                        \
		fill(block, size);                                               \
		leaked(size);                                                    \
		if (size % 2)                                                    \
			forget(block);                                           \
		else                                                             \
			remember(block);                                         \
	}                                                                        \
	SITE static void answer_##name(size_t size)                              \
	{                                                                        \
		site_##name(size);                                               \
		worked(1);                                                       \
	}                                                                        \
	void step_##name(void)                                                   \
	{                                                                        \
		static size_t next;                                              \
                                                                                 \
		while (owed() >= (next = next ? next : between(low, high))) {    \
			answer_##name(next);                                     \
			next = 0;                                                \
		}                                                                \
	}

static size_t whole_pages(size_t size) { return (size + 4095) & ~(size_t)4095; }

static void *map(size_t size)
{
	void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return block == MAP_FAILED ? NULL : block;
}

LEAK_AT_RATE(malloc, 100, 2000, block = malloc(size))
LEAK_AT_RATE(malloc_64, 64, 64, block = malloc(size))
LEAK_AT_RATE(malloc_1m, MIB, MIB, block = malloc(size))
LEAK_AT_RATE(calloc, 100, 3000, block = calloc(1, size))
LEAK_AT_RATE(memalign, 500, 5000, block = memalign(256, size))
LEAK_AT_RATE(posix_memalign, 200, 4000, if (posix_memalign(&block, 64, size)) block = NULL)
LEAK_AT_RATE(aligned_alloc, 1024, 4096, block = aligned_alloc(64, size = size & ~(size_t)63))
LEAK_AT_RATE(reallocarray, 400, 4000, block = reallocarray(NULL, (size = size & ~(size_t)7) / 8, 8))
LEAK_AT_RATE(mmap, 16 * KIB, 256 * KIB, block = map(size = whole_pages(size)))
/* A wrapper that everybody uses: the caller of the wrapper is the culprit, not the wrapper. */
SITE static void *xmalloc(size_t size)
{
	void *block = malloc(size);

	if (!block)
		fail("no memory");
	return block;
}
LEAK_AT_RATE(wrapper, 100, 3000, block = xmalloc(size))
void also_wrapper(void)
{
	step_wrapper();
	for (unsigned i = 0; i < 30; i++)
		free(xmalloc(between(20, 2000)));
	worked(30);
}

/* strdup and asprintf allocate inside libc: the caller is one frame further away. */
SITE static void site_strdup(size_t length)
{
	char *copy = strdup(text_of(length));

	fill(copy, 1);
	leaked(length + 1);
	remember(copy);
}
SITE static void site_asprintf(size_t length)
{
	char *line;

	if (asprintf(&line, "%s: %s", "order", text_of(length)) < 0)
		fail("no memory");
	leaked(length + 8);
	forget(line);
}
void step_strdup(void)
{
	while (owed() > 2000)
		site_strdup(between(40, 900));
}
void step_asprintf(void)
{
	while (owed() > 2000)
		site_asprintf(between(40, 900));
}

/* --- one block that grows, blocks that are lost on the way ------------------------------------------------------- */

SITE static void site_realloc_growth(size_t more)
{
	static char *table;
	static size_t size;

	table = realloc(table, size + more);
	if (!table)
		fail("no memory");
	memset(table + size, 1, more);
	size += more;
	leaked(more);
}
void step_realloc_growth(void)
{
	if (owed() > 2000)
		site_realloc_growth(owed());
}

/* The classic: p = realloc(p, n) with an n that cannot be had; the old block is lost. */
SITE static void site_failing_realloc(size_t size)
{
	void *volatile block = fill(malloc(size), size);
	volatile size_t impossible = (size_t)1 << 62;
	void *bigger = realloc(block, impossible);

	if (bigger)
		fail("a realloc of 2^62 bytes succeeded");
	leaked(size);
}
void step_failing_realloc(void)
{
	static size_t next;

	while (owed() >= (next = next ? next : between(200, 4000))) {
		site_failing_realloc(next);
		next = 0;
	}
}

SITE static void site_partial_munmap(void)
{
	size_t kept = 16 * KIB, all = 64 * KIB;
	char *block = fill(map(all), all);

	switch (draw() % 3) {   /* what is kept lies in front, at the end, or on both sides */
	case 0: munmap(block + kept, all - kept); break;
	case 1: munmap(block, all - kept); break;
	default: munmap(block + kept / 2, all - kept); break;
	}
	leaked(kept);
}
void step_partial_munmap(void)
{
	while (owed() >= 16 * KIB)
		site_partial_munmap();
}

SITE static void site_mremap(size_t more)
{
	static char *block;
	static size_t size;
	char *moved = size ? mremap(block, size, size + more, MREMAP_MAYMOVE) : map(more);

	if (!moved || moved == MAP_FAILED)
		fail("no memory");
	memset(moved + size, 1, more);
	block = moved;
	size += more;
	leaked(more);
}
void step_mremap(void)
{
	if (owed() >= 64 * KIB)
		site_mremap(owed() & ~(size_t)4095);
}

SITE static void site_sbrk(size_t size)
{
	void *block = sbrk((intptr_t)size);

	if (block == (void *)-1)
		fail("no memory");
	fill(block, size);
	leaked(size);
}
void step_sbrk(void)
{
	while (owed() >= 32 * KIB)
		site_sbrk(32 * KIB);
}

/* --- what makes leaks hard to see --------------------------------------------------------------------------------- */

/* Twelve seconds' worth at once, then nothing for twelve seconds. */
SITE static void site_rare_steps(size_t size)
{
	remember(fill(malloc(size), size));
	leaked(size);
}
void step_rare_steps(void)
{
	static double next_s = 4;

	if (elapsed_s() < next_s)
		return;
	next_s += 12;
	site_rare_steps((size_t)(rate_bytes_per_s() * 12) | 16);
}

/* The heap has 96 MB of free room that stays resident: what leaks into it moves no counter of the kernel. */
SITE static void fill_and_free_heap(void)
{
	void **blocks = malloc(96 * KIB * sizeof(*blocks));

	for (size_t i = 0; i < 96 * KIB; i++)
		blocks[i] = fill(malloc(1000), 1000);
	for (size_t i = 0; i + 1 < 96 * KIB; i++)   /* the last one stays, so that the heap is not trimmed */
		free(blocks[i]);
	held(1000);
	free(blocks);
}
void start_recycled(void) { fill_and_free_heap(); }
LEAK_AT_RATE(recycled, 100, 900, block = malloc(size))

/* Anonymous memory goes up and down by tens of megabytes; the leak is under it. */
static void *make_noise(void *unused)
{
	(void)unused;
	while (!stopping()) {
		size_t size = between(2, 40) * MIB;
		char *block = fill(map(size), size);

		nap_ms((double)between(200, 2500));
		munmap(block, size);
		nap_ms((double)between(50, 800));
	}
	return NULL;
}
void start_noisy(void)
{
	start_thread(make_noise, NULL);
	start_thread(make_noise, NULL);
}
LEAK_AT_RATE(noisy, 200, 3000, block = malloc(size))

/* One in a hundred blocks of a busy stack is not given back. */
SITE static void *site_partial(size_t size) { return fill(malloc(size), size); }
static void serve_partial(unsigned one_in, size_t size)
{
	while (owed() >= size)
		for (unsigned i = 0; i < one_in; i++) {
			void *block = site_partial(size);

			worked(1);
			if (i)
				free(block);
			else {
				remember(block);
				leaked(size);
			}
		}
}
void step_partial(void) { serve_partial(100, 512); }
void step_partial_rare(void) { serve_partial(1000, 256); }

/* Only requests that fail leak, deep in the clean-up that was forgotten. */
LEAK_AT_RATE(error_path, 300, 1500, block = malloc(size))
void also_error_path(void)
{
	static unsigned n;

	if (++n % 20 == 0)
		step_error_path();
}

LEAK_AT_RATE(late_start, 200, 2000, block = malloc(size))
void also_late_start(void)   /* healthy for 12 seconds */
{
	static size_t excused;

	if (elapsed_s() < 12)
		excused = owed();
	else if (owed() > excused)
		for (size_t n = owed() - excused; n > 2000; n = owed() > excused ? owed() - excused : 0)
			answer_late_start(between(200, 2000));
}

/* A table of its own that grows: entries are small, and found in no list of freed blocks. */
struct entry {
	struct entry *next;
	char key[24];
};
static struct entry *buckets[4096];
SITE static void site_hash_table(void)
{
	struct entry *entry = malloc(sizeof(*entry));
	struct entry **bucket = &buckets[draw() % 4096];

	fill(entry, sizeof(*entry));
	entry->next = *bucket;
	*bucket = entry;
	leaked(sizeof(*entry));
}
void step_hash_table(void)
{
	while (owed() >= sizeof(struct entry))
		site_hash_table();
}

/* An arena that hands out small pieces of chunks; the chunks are never given back. */
SITE static char *site_own_arena(void)
{
	leaked(64 * KIB);
	return fill(malloc(64 * KIB), 64 * KIB);
}
SITE static void *take_from_arena(size_t size)
{
	static char *chunk;
	static size_t used = 64 * KIB;

	if (used + size > 64 * KIB) {
		chunk = site_own_arena();
		used = 0;
	}
	used += size;
	return chunk + used - size;
}
void step_own_arena(void)
{
	static double given;

	while (given < rate_bytes_per_s() * elapsed_s()) {
		forget(take_from_arena(200));
		given += 200;
	}
}

/* Fills and empties a buffer list all the time; each round leaves a little more behind. */
LEAK_AT_RATE(sawtooth_leak, 300, 3000, block = malloc(size))
void also_sawtooth_leak(void)
{
	static void *buffers[512];
	static unsigned n;

	step_sawtooth_leak();
	if (n < 512)
		buffers[n++] = fill(malloc(60 * KIB), 60 * KIB);
	else
		while (n)
			free(buffers[--n]);
	worked(1);
}

/* A cache fills to its bound in 15 s, and something leaks beside it. */
LEAK_AT_RATE(beside_cache, 100, 2000, block = malloc(size))
void also_beside_cache(void)
{
	static void *cache[4096];
	static unsigned n;

	step_beside_cache();
	for (; n < elapsed_s() * 4096 / 15; n++) {
		free(cache[n % 4096]);
		cache[n % 4096] = fill(malloc(3000), 3000);
	}
}

/* Events come in bursts of four seconds, every ten. */
LEAK_AT_RATE(bursts, 100, 1500, block = malloc(size))
void also_bursts(void)
{
	if ((long)elapsed_s() % 10 < 4)
		step_bursts();
}
