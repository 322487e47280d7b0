/* Programs that are healthy and look as if they leaked: all they keep is within a bound, or given back in time. */
#define _GNU_SOURCE
#include "kinds.h"
#include "simulator.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_SLOTS 16384

/* Blocks that are replaced oldest first: caches, logs, delays. */
struct rotation {
	void *slots[MAX_SLOTS];
	unsigned n_slots;
	unsigned long n_put;
	size_t low, high;
	double per_s;
};

SITE static void *site_rotation(size_t size) { return fill(malloc(size), size); }

static void put(struct rotation *all)
{
	void **slot = &all->slots[all->n_put++ % all->n_slots];

	if (!*slot)
		held((long)(all->low + all->high) / 2);
	free(*slot);
	*slot = site_rotation(between(all->low, all->high));
	worked(1);
}

static void rotate(struct rotation *all, unsigned long n_before)
{
	while (all->n_put < n_before + elapsed_s() * all->per_s)
		put(all);
}

static struct rotation cache = { .low = 2000, .high = 4000, .n_slots = 8192 };
static unsigned long n_cached_before;

static void prefill(void)
{
	while (cache.n_put < cache.n_slots)
		put(&cache);
	n_cached_before = cache.n_put;
}
void start_cache20(void) { cache.per_s = cache.n_slots / 20.0; }
void start_cache40(void) { cache.per_s = cache.n_slots / 40.0; }
void start_lru(void) { cache.per_s = cache.n_slots / 16.0; prefill(); }
void start_lru_slow(void) { cache.per_s = cache.n_slots / 32.0; prefill(); }
void step_cache(void) { rotate(&cache, n_cached_before); }

void step_timeouts(void)   /* every object is given back after exactly 20 s */
{
	static struct rotation pending = { .low = 1000, .high = 3000, .n_slots = 4000, .per_s = 200 };

	rotate(&pending, 0);
}
void step_ring_log(void)
{
	static struct rotation lines = { .low = 40, .high = 200, .n_slots = 10000, .per_s = 2000 };

	rotate(&lines, 0);
}

/* Objects that are used again and again; their number follows the load and is bounded by it. */
SITE static void *site_pool(void)
{
	held(2000);
	return fill(malloc(2000), 2000);
}
void step_pool(void)
{
	static void *idle[3000];
	static unsigned n_idle;
	void *taken[3000];
	double busiest = fmin(1, elapsed_s() / 12) * 2800;
	unsigned n = (unsigned)(busiest * between(50, 100) / 100);

	for (unsigned i = 0; i < n; i++)
		taken[i] = n_idle ? idle[--n_idle] : site_pool();
	for (unsigned i = 0; i < n; i++)
		idle[n_idle++] = taken[i];
	worked(n);
}

SITE static char *site_interned(size_t length)
{
	held((long)length);
	return strdup(text_of(length));
}
void step_interned(void)   /* 30,000 possible words, each kept when first seen */
{
	static char *words[30000];
	static double n_seen;

	for (; n_seen < elapsed_s() * 3000; n_seen++) {
		unsigned word = draw() % 30000;

		if (!words[word])
			words[word] = site_interned(20 + word % 400);
	}
}

/* Sessions live five seconds on average; their number follows the load. */
static struct session {
	void *data;
	double dies_s;
} sessions[8192];

SITE static void *site_session(void)
{
	return fill(malloc(4000), 4000);
}
static void tend(unsigned n_wanted)
{
	double now = elapsed_s();

	for (unsigned i = 0; i < 8192; i++) {
		struct session *session = &sessions[i];

		if (session->data && now > session->dies_s) {
			free(session->data);
			session->data = NULL;
		}
		if (!session->data && i < n_wanted) {
			session->data = site_session();
			session->dies_s = now + draw_exponential(5);
			worked(1);
		}
	}
}
void start_sessions(void) { tend(4000); }
void step_sessions(void) { tend(4000); }
void step_load_step(void) { tend(elapsed_s() < 18 ? 4000 : 8000); }
void step_load_wave(void) { tend((unsigned)(4500 - 3000 * cos(elapsed_s() * 2 * M_PI / 30))); }

/* Garbage is only counted, and given back all at once when there is enough of it. */
SITE static void *site_sawtooth(size_t size) { return fill(malloc(size), size); }
static void collect_at(double per_s, unsigned n_full)
{
	static void *garbage[MAX_SLOTS];
	static unsigned n;
	static double n_made;

	for (; n_made < elapsed_s() * per_s; n_made++) {
		garbage[n++] = site_sawtooth(between(2000, 6000));
		while (n >= n_full)
			for (; n; n--)
				free(garbage[n - 1]);
	}
}
void step_sawtooth(void) { collect_at(1000, 9000); }
void step_sawtooth_slow(void) { collect_at(400, 9000); }

SITE static void site_one_large(void)
{
	remember(fill(malloc(64 * MIB), 64 * MIB));
	held(64 * MIB);
}
void step_one_large(void)
{
	static bool done;

	if (!done && elapsed_s() > 10) {
		site_one_large();
		done = true;
	}
}

/* A job grows for 40 s and then gives everything back; the next one begins 8 s later. */
SITE static void *site_batch(size_t size) { return fill(malloc(size), size); }
static void run_batch(bool ends)
{
	static void *rows[4096];
	static unsigned n;
	static double began_s;
	double age = elapsed_s() - began_s;

	for (; age < 40 && n < age * 64; n++)
		rows[n] = site_batch(16 * KIB);
	if (age >= 40)
		for (; n; n--)
			free(rows[n - 1]);
	if (age >= 40 && ends)
		stop_now();
	if (age >= 48)
		began_s = elapsed_s();
}
void step_batch(void) { run_batch(false); }
void step_batch_exit(void) { run_batch(true); }

/* The new configuration is built before the old one is given back. */
SITE static void **site_reload(void)
{
	void **config = malloc(400 * sizeof(*config));

	for (unsigned i = 0; i < 400; i++)
		config[i] = fill(malloc(20 * KIB), 20 * KIB);
	return config;
}
void step_reload(void)
{
	static void **current;
	static double next_s;
	void **old = current;

	if (elapsed_s() < next_s)
		return;
	next_s += 12;
	current = site_reload();
	for (unsigned i = 0; old && i < 400; i++)
		free(old[i]);
	free(old);
}

SITE static void site_warm_up(void)
{
	remember(fill(calloc(1, 40 * KIB), 40 * KIB));
	held(40 * KIB);
}
void step_warm_up(void)
{
	static unsigned n;

	for (; n < 500 * (1 - exp(-elapsed_s() / 5)); n++)
		site_warm_up();
}

SITE static void *site_vector(void *old, size_t size) { return realloc(old, size); }
void step_vector(void)   /* doubles up to 16 MB in 12 s, then begins again */
{
	static char *vector;
	static size_t n, capacity;
	static double began_s;

	if (elapsed_s() - began_s > 12) {
		free(vector);
		vector = NULL;
		n = capacity = 0;
		began_s = elapsed_s();
	}
	while (n < (elapsed_s() - began_s) * MIB) {
		if (n + 1000 > capacity) {
			capacity = capacity ? 2 * capacity : 4096;
			vector = site_vector(vector, capacity);
		}
		fill(vector + n, 1000);
		n += 1000;
	}
}

/* A table with 200,000 entries after 30 s, and not one more; the array of buckets doubles on the way. */
SITE static void *site_rehash_entry(void)
{
	held(48);
	return fill(malloc(48), 48);
}
SITE static void **site_rehash(size_t n_buckets)
{
	return calloc(n_buckets, sizeof(void *));
}
void step_rehash(void)
{
	static void **buckets;
	static size_t n, n_buckets;

	for (; n < 200000 && n < elapsed_s() * 200000 / 30; n++) {
		if (n == n_buckets) {
			void **bigger = site_rehash(n_buckets ? 2 * n_buckets : 1024);

			if (buckets)
				memcpy(bigger, buckets, n_buckets * sizeof(void *));
			free(buckets);
			buckets = bigger;
			n_buckets = n_buckets ? 2 * n_buckets : 1024;
		}
		buckets[n] = site_rehash_entry();
	}
}

SITE static void *site_double_buffer(void) { return fill(malloc(16 * MIB), 16 * MIB); }
void step_double_buffer(void)
{
	static void *shown;
	static double next_s;
	void *old = shown;

	if (elapsed_s() < next_s)
		return;
	next_s += 5;
	shown = site_double_buffer();
	free(old);
}

SITE static void *site_region(void) { return fill(malloc(64 * KIB), 64 * KIB); }
void step_region(void)   /* a region grows during each long request and is given back with it */
{
	static void *chunks[120];
	static unsigned n;

	if (n == 120)
		for (; n; n--)
			free(chunks[n - 1]);
	chunks[n++] = site_region();
}

/* Live bytes are constant, but small and large blocks take turns, so that free room does not fit what is asked for. */
static struct {
	void *block;
	size_t size;
} pieces[100000];
static size_t live;

SITE static void *site_fragmentation(size_t size) { return fill(malloc(size), size); }
static void exchange(unsigned n)
{
	bool large = (long)(elapsed_s() / 8) % 2;

	while (n--) {
		unsigned i = draw() % 100000;

		live -= pieces[i].size;
		free(pieces[i].block);
		pieces[i].block = NULL;
		pieces[i].size = 0;
		if (live < 30 * MIB) {
			pieces[i].size = large ? between(1500, 6000) : between(30, 400);
			pieces[i].block = site_fragmentation(pieces[i].size);
			live += pieces[i].size;
		}
	}
}
void start_fragmentation(void) { exchange(200000); }
void step_fragmentation(void) { exchange(80); }
