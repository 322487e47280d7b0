/* Leaks that are not in the main thread of the program that was started: threads, children, libraries, descriptors. */
#define _GNU_SOURCE
#include "kinds.h"
#include "simulator.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#ifndef WITHOUT_DLOPEN
#include <dlfcn.h>
#endif

#define N_THREADS 16
#define START_S 12 /* of what shall not be there yet when a watcher on a busy host has begun to look */

SITE static void site_threads(size_t size)
{
	forget(fill(malloc(size), size));
	leaked(size);
}
static void *work_and_leak(void *unused)
{
	(void)unused;
	while (!stopping()) {
		churn(4);
		for (size_t n = owed_by_part(N_THREADS), size; n > 0; n -= size) {
			size = n < 2000 ? n : between(200, 2000);
			site_threads(size);
		}
		nap_ms(20);
	}
	return NULL;
}
void start_threads(void)
{
	for (int i = 0; i < N_THREADS; i++)
		start_thread(work_and_leak, NULL);
}

/* A thread per connection, ten a second; each leaves its buffer behind. */
SITE static void site_thread_churn(size_t size)
{
	forget(fill(malloc(size), size));
	leaked(size);
}
static void *serve_connection(void *size)
{
	free(fill(malloc(5000), 5000));
	site_thread_churn((size_t)size);
	return NULL;
}
void step_thread_churn(void)
{
	static double next_s;
	pthread_t thread;

	if (elapsed_s() < next_s)
		return;
	next_s += 0.1;
	if (pthread_create(&thread, NULL, serve_connection, (void *)(owed() | 16)) || pthread_join(thread, NULL))
		fail("cannot start a thread");
}

SITE static void site_forked_child(size_t size)
{
	forget(fill(malloc(size), size));
	leaked(size);
}
static void live_as_child(void)
{
	while (!stopping()) {
		churn(20);
		while (owed() > 2000)
			site_forked_child(between(100, 2000));
		nap_ms(10);
	}
	_exit(0);
}
void start_forked_child(void)
{
	int pid = fork_child();

	if (!pid)
		live_as_child();
	watch_this(pid);
}
void step_forked_later(void)   /* the parent is watched already when the child comes */
{
	static int pid;

	if (!pid && elapsed_s() > START_S && !(pid = fork_child()))
		live_as_child();
}

/* The same process, with another program in it from START_S on. */
void step_exec(void)
{
	static char rest[32];

	if (getenv("SIMULATOR_HAS_EXECED")) {
		step_malloc();
		return;
	}
	if (elapsed_s() < START_S)
		return;
	setenv("SIMULATOR_HAS_EXECED", "1", 1);
	for (char **argument = simulator_argv; *argument; argument++)
		if (!strcmp(*argument, "--duration")) {
			snprintf(rest, sizeof(rest), "%f", atof(argument[1]) - elapsed_s());
			argument[1] = rest;
		}
	execv("/proc/self/exe", simulator_argv);
	fail("cannot exec");
}

#ifndef WITHOUT_DLOPEN
void step_dlopen(void)
{
	static void (*plugin_step)(void);

	if (!plugin_step && elapsed_s() > 3) {
		char path[4096];
		ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 32);
		void *library;

		path[length < 0 ? 0 : length] = 0;
		strcpy(strrchr(path, '/') + 1, "plugin.so");
		library = dlopen(path, RTLD_NOW);
		plugin_step = library ? (void (*)(void))dlsym(library, "plugin_step") : NULL;
		if (!plugin_step)
			fail(dlerror());
	}
	if (plugin_step)
		plugin_step();
}
#endif

/* Three descriptors a second. The memory for them is the kernel's. */
SITE static void site_descriptors(void)
{
	if (open("/dev/null", O_RDONLY) < 0)
		fail("no more descriptors");
	leaked(0);
}
void step_descriptors(void)
{
	static struct rlimit limit;
	static double next_s;

	if (!limit.rlim_max) {
		getrlimit(RLIMIT_NOFILE, &limit);
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	for (; next_s < elapsed_s(); next_s += 1 / 3.0)
		site_descriptors();
}

/* One thread a second that waits for what never comes. */
static void *wait_for_ever(void *unused)
{
	char stack[64 * KIB];

	(void)unused;
	forget(fill(stack, sizeof(stack)));
	for (;;)
		pause();
	return NULL;
}
SITE static void site_stuck_threads(void)
{
	start_thread(wait_for_ever, NULL);
	leaked(64 * KIB);
}
void step_stuck_threads(void)
{
	static double next_s;

	for (; next_s < elapsed_s(); next_s += 1)
		site_stuck_threads();
}
