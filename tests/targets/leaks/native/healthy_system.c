/* Healthy programs whose memory moves because of threads, children, mappings, files and the kernel. */
#define _GNU_SOURCE
#include "kinds.h"
#include "simulator.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25   /* Linux 6.1, include/uapi/asm-generic/mman-common.h */
#endif

static char *map_of(size_t size, int flags, int fd)
{
	void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (block == MAP_FAILED)
		fail("no memory");
	return block;
}

/* Twelve threads with bursts of blocks of mixed sizes: glibc gives each an arena and keeps what they had. */
SITE static void *site_arenas(size_t size) { return fill(malloc(size), size); }
static void *burst_now_and_then(void *unused)
{
	void *blocks[400];

	(void)unused;
	while (!stopping()) {
		unsigned n = (unsigned)between(100, 400);

		for (unsigned i = 0; i < n; i++)
			blocks[i] = site_arenas(between(200, draw() % 4 ? 4000 : 60000));
		for (unsigned i = 0; i < n; i++) {   /* given back in another order */
			unsigned j = i + draw() % (n - i);
			void *block = blocks[j];

			blocks[j] = blocks[i];
			free(block);
		}
		worked(n);
		nap_ms((double)between(100, 1500));
	}
	return NULL;
}
void start_arenas(void)
{
	for (int i = 0; i < 12; i++)
		start_thread(burst_now_and_then, NULL);
}

/* One thread produces, one consumes, now the one is faster and now the other; never more than 4,000 messages. */
#define DEPTH 4000
static void *messages[DEPTH];
static unsigned n_produced, n_consumed;
static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;

SITE static void *site_queue(size_t size) { return fill(malloc(size), size); }
static void *produce(void *unused)
{
	(void)unused;
	while (!stopping()) {
		for (size_t n = between(0, 16); n; n--) {
			pthread_mutex_lock(&queue_lock);
			if (n_produced - n_consumed < DEPTH)
				messages[n_produced++ % DEPTH] = site_queue(between(500, 8000));
			pthread_mutex_unlock(&queue_lock);
		}
		nap_ms(10);
	}
	return NULL;
}
static void *consume(void *unused)
{
	(void)unused;
	while (!stopping()) {
		bool slow = (long)(elapsed_s() / 10) % 2 == 0;

		for (size_t n = slow ? between(0, 13) : between(0, 19); n; n--) {
			pthread_mutex_lock(&queue_lock);
			if (n_produced != n_consumed)
				free(messages[n_consumed++ % DEPTH]);
			pthread_mutex_unlock(&queue_lock);
			worked(1);
		}
		nap_ms(10);
	}
	return NULL;
}
void start_queue(void)
{
	start_thread(produce, NULL);
	start_thread(consume, NULL);
}

/* Thirty threads for two seconds, every eight; libc keeps some of their stacks. */
static void *be_busy_for_two_seconds(void *unused)
{
	char stack[256 * KIB];

	(void)unused;
	forget(fill(stack, sizeof(stack)));
	for (int i = 0; i < 20; i++) {
		churn(20);
		nap_ms(100);
	}
	end_churn();
	return NULL;
}
void step_thread_burst(void)
{
	static double next_s = 1;

	if (elapsed_s() < next_s)
		return;
	next_s += 8;
	for (int i = 0; i < 30; i++)
		start_thread(be_busy_for_two_seconds, NULL);
}

/* The child writes to what it inherited: 2 MB/s of pages become its own, 80 MB and then no more. */
void start_fork_cow(void)
{
	char *inherited = fill(malloc(80 * MIB), 80 * MIB);
	int pid = fork_child();

	if (pid) {
		held(80 * MIB);
		watch_this(pid);
		return;
	}
	for (size_t at = 0; !stopping(); nap_ms(10)) {
		churn(20);
		for (; at < 80 * MIB && at < elapsed_s() * 2 * MIB; at += 4096)
			inherited[at] = 1;
	}
	_exit(0);
}

/* 80 MB of which one page in 512 is used; the kernel makes huge pages of it, 2 MB a second. */
static char *sparse;
void start_huge_pages(void)
{
	char *block = map_of(82 * MIB, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	sparse = (char *)(((uintptr_t)block + 2 * MIB - 1) & ~(uintptr_t)(2 * MIB - 1));
	for (size_t at = 0; at < 80 * MIB; at += 2 * MIB)
		sparse[at] = 1;
	held(80 * MIB);
}
void step_huge_pages(void)
{
	static size_t at;

	for (; at < 80 * MIB && at < elapsed_s() * 2 * MIB; at += 2 * MIB)
		if (madvise(sparse + at, 2 * MIB, MADV_COLLAPSE))
			fill(sparse + at, 2 * MIB);   /* a kernel without it: the same growth by hand */
}

/* A file of 40 MB is written and looked at through a mapping, 1 MB a second. */
static int cached_fd = -1;
static char *cached;
void start_page_cache(void)
{
	char path[] = "/tmp/simulator-XXXXXX";

	cached_fd = mkstemp(path);
	if (cached_fd < 0 || unlink(path) || ftruncate(cached_fd, 40 * MIB))
		fail("cannot make a file in /tmp");
	cached = map_of(40 * MIB, MAP_SHARED, cached_fd);
}
void step_page_cache(void)
{
	static size_t n;
	static char page[4096];

	for (; n < elapsed_s() * MIB; n += sizeof(page)) {
		size_t at = n % (40 * MIB);

		if (pwrite(cached_fd, page, sizeof(page), (off_t)at) < 0)
			fail("cannot write");
		forget(&cached[at] + cached[at]);
	}
}

static char *shared;
void start_shared_memory(void)
{
	int fd = memfd_create("table", 0);

	if (fd < 0 || ftruncate(fd, 45 * MIB))
		fail("no shared memory");
	shared = map_of(45 * MIB, MAP_SHARED, fd);
	held(45 * MIB);
}
void step_shared_memory(void)   /* full after 45 s */
{
	static size_t at;

	for (; at < 45 * MIB && at < elapsed_s() * MIB; at += 4096)
		shared[at] = 1;
}

/* Sixteen mappings of 1 MB; every second the oldest is replaced. */
SITE static char *site_mapped_ring(void)
{
	return fill(map_of(MIB, MAP_PRIVATE | MAP_ANONYMOUS, -1), MIB);
}
void step_mapped_ring(void)
{
	static char *segments[16];
	static unsigned n;

	for (; n < elapsed_s(); n++) {
		if (segments[n % 16])
			munmap(segments[n % 16], MIB);
		segments[n % 16] = site_mapped_ring();
	}
}

/* Half of a mapping is given back at once, the other half six seconds later. */
SITE static char *site_mapped_halves(void)
{
	char *block = fill(map_of(MIB, MAP_PRIVATE | MAP_ANONYMOUS, -1), MIB);

	munmap(block, MIB / 2);
	return block + MIB / 2;
}
void step_mapped_halves(void)
{
	static char *halves[6];
	static unsigned n;

	for (; n < elapsed_s(); n++) {
		if (halves[n % 6])
			munmap(halves[n % 6], MIB / 2);
		halves[n % 6] = site_mapped_halves();
	}
}

/* Eight threads, each with a cache of 2 MB of its own that is full after 15 s. */
SITE static void *site_thread_caches(void)
{
	return fill(malloc(4000), 4000);
}
static void *fill_own_cache(void *unused)
{
	static _Thread_local void *cache[500];

	(void)unused;
	for (unsigned n = 0; !stopping(); nap_ms(20)) {
		churn(10);
		for (; n < elapsed_s() * 500 / 15; n++) {
			if (cache[n % 500])
				free(cache[n % 500]);
			else
				held(4000);
			cache[n % 500] = site_thread_caches();
		}
	}
	return NULL;
}
void start_thread_caches(void)
{
	for (int i = 0; i < 8; i++)
		start_thread(fill_own_cache, NULL);
}

/* Connections: two hundred at most after ten seconds, the oldest is closed for a new one. */
void step_many_descriptors(void)
{
	static int open_fds[200];
	static unsigned n;

	for (; n < elapsed_s() * 20; n++) {
		if (open_fds[n % 200])
			close(open_fds[n % 200]);
		open_fds[n % 200] = open("/dev/null", O_RDONLY);
	}
}
