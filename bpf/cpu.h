/* SPDX-License-Identifier: GPL-2.0-only */
/* cpu.h: what cpu.bpf.c shares with user space. */
#ifndef GPROF_LITE_CPU_H
#define GPROF_LITE_CPU_H

#include "stack.h"

#define CPU_TAG 101 /* beside FAULT_TAG of faults.h: the same addresses are another stack */
#define NO_STACK 0  /* instead of an id: nothing of user space ran */

/* `samples`: how often a thread of this process was found with these two stacks. */
struct cpu_key {
	u64 stack_id;	  /* in `stacks`, or NO_STACK */
	u32 tgid;	  /* 0: the kernel's own threads */
	s32 kernel_stack; /* in `kernel_stacks`; negative: the thread was in user space, or there was no room */
};

/* `counters`, per CPU. */
struct cpu_counters {
	u64 n_samples;
	u64 n_idle;	     /* nothing ran: not among the samples */
	u64 stacks_full;     /* samples whose stack there was no room for */
	u64 hash_collisions; /* samples whose stack has the id of another one */
	u64 samples_full;    /* samples that were not counted */
	u64 bad_read;	     /* threads whose registers could not be read */
	u64 stops[STACK_STOPS];
};

#endif
