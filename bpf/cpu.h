/* SPDX-License-Identifier: GPL-2.0-only */
/* cpu.h: what cpu.bpf.c shares with gprof_lite/probes/cpu_layout.py. */
#ifndef GPROF_LITE_CPU_H
#define GPROF_LITE_CPU_H

#include "account.h"
#include "stack.h"

#define KERNEL_DEPTH 128 /* power of two; kernel.perf_event_max_stack is 127 unless raised */

/* Which process a sample is of, for good: a pid comes again, and an exec makes another program of it. */
struct cpu_process {
	u64 start_boottime_ns; /* of its first thread; 0: the idle task */
	u32 tgid;
	u32 image; /* how many execs it and its ancestors have been through */
};

/* `processes`: how often each was met, since user space took note of it. */
struct cpu_activity {
	u64 n_samples;
	u64 n_cut;    /* whose stack of user space did not reach its root */
	u64 first_ns; /* CLOCK_BOOTTIME */
	u64 last_ns;
};

/* `counts`: equal samples of one window. A stack's id is 0 where there is none. */
struct cpu_key {
	struct cpu_process process;
	u64 user_stack;
	u64 kernel_stack;
	char comm[16]; /* the thread's */
	u32 turn;
	u32 unused;
};

/* `kernel_stacks`: leaf first. */
struct kernel_stack {
	u64 check; /* as in struct stack_record */
	u32 turn;
	u32 n_frames;
	u64 frames[KERNEL_DEPTH];
};

/* Why a sample is in no count. */
enum cpu_loss {
	LOSS_COUNTS_FULL = 0,
	LOSS_STACKS_FULL = 1,
	LOSS_COLLISION = 2, /* two stacks with one id */
	LOSS_COUNT = 4,
};

/* `counters`: of one window, by its parity; one of each for each CPU. */
struct cpu_counters {
	u64 n_begun;
	u64 n_done;	   /* both equal: no program is at work in this window any more */
	u64 n_passed_over; /* of processes that nobody asked for */
	u64 n_walks;
	u64 spent_ns; /* in the program */
	u64 losses[LOSS_COUNT];
	u64 stops[STACK_STOPS]; /* how walks of user space ended */
};

#endif
