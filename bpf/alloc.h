/* SPDX-License-Identifier: GPL-2.0-only */
/* alloc.h: what alloc.bpf.c shares with gprof_lite/probes/allocation_layout.py: keys, values, events, numbers. */
#ifndef GPROF_LITE_ALLOC_H
#define GPROF_LITE_ALLOC_H

#include "account.h"
#include "stack.h"

#define COUNT_ONE 256 /* counts of blocks are in 1/256: a sampled block stands for 2.7 others */

/* In the low byte of a probe's cookie; the next byte holds how many bytes the function had pushed at the probe. */
enum alloc_function {
	FN_NONE = 0,
	FN_MALLOC = 1, /* anything whose first argument is the size: valloc, operator new */
	FN_CALLOC = 2,
	FN_REALLOC = 3,
	FN_REALLOCARRAY = 4,
	FN_POSIX_MEMALIGN = 5,
	FN_MEMALIGN = 6, /* alignment first: aligned_alloc, too */
	FN_FREE = 7,
	FN_MMAP = 8,
	FN_MUNMAP = 9,
	FN_MREMAP = 10,
	FN_BRK = 11,
	FN_SBRK = 12,
	FN_COUNT = 13,
};

/* The one value of `tunings`; user space may change it at any time. */
struct alloc_tuning {
	u64 min_size_bytes;
	u64 sampling_rate;
	u64 large_bytes;
	u64 sample_bytes;
	u64 max_blocks;
	u64 epoch_ns;
	u64 epoch_zero_ns; /* when epoch 0 began, CLOCK_MONOTONIC */
	u64 n_epochs;
	u64 is_taking; /* 0: no new blocks are followed, only what becomes of those that are */
};

/* The one value of `prices`: what a hit takes from the target, in ns, as user space measured it. */
struct alloc_prices {
	u64 hit_ns[FN_COUNT];
	u64 return_ns[FN_COUNT];
	u64 sample_ns; /* of a stack and its maps, on top */
};

/* The one value of `brakes`, written by user space only: up to where `spending` may go. 0: for ever. */
struct alloc_brake {
	u64 limit_ns;
};

/* The one value of `spending`, written by the programs only. */
struct alloc_spending {
	u64 spent_ns;
	u64 told_ns; /* the limit whose end user space was told of */
};

/* The one value of `levels`: how full the map of blocks is, and which share of addresses is followed. */
struct alloc_level {
	s64 n_blocks;
	u64 shift; /* addresses are followed whose hash starts with this many zero bits */
};

struct alloc_target {
	u64 start_time_ticks; /* for user space */
	u32 generation;	      /* counts execs and new beginnings: blocks of another one are nobody's */
	u32 image;	      /* counts execs: stacks of another one have another meaning */
};

struct block_key {
	u64 address;
	u32 tgid;
	u32 generation;
};

#define BLOCK_ALWAYS 1 /* large: followed whatever its address */

struct block {
	u64 stack_id;
	u64 weight_bytes;
	u32 count; /* in 1/COUNT_ONE */
	u16 epoch;
	u8 shift; /* the share of addresses its weight was made for */
	u8 flags;
};

struct epoch_totals {
	u64 allocated_bytes;
	u64 outstanding_bytes;
	u32 n_allocated; /* followed blocks, not weighted */
	u32 n_outstanding;
};

/* `totals`: by stack id. Everything only ever added to, atomically. */
struct stack_totals {
	u32 tgid;
	u32 image;
	u64 n_allocated; /* in 1/COUNT_ONE */
	u64 allocated_bytes;
	u64 n_outstanding; /* in 1/COUNT_ONE */
	u64 outstanding_bytes;
	u64 n_sampled;
	u64 largest_bytes;
	struct epoch_totals epochs[EPOCHS];
};

enum alloc_loss {
	LOSS_MAP_FULL,
	LOSS_STACKS_FULL,
	LOSS_THREADS_FULL,
	LOSS_HASH_COLLISION,
	LOSS_RING_DROPPED,
	LOSS_ADDRESS_REUSED,
	LOSS_PENDING_LOST,
	LOSS_BAD_READ,
	LOSS_OVER_LIMIT, /* allocations that were chosen when the limit was reached */
	LOSS_COUNT,
};

/* `counters`, per CPU. */
struct alloc_counters {
	u64 hits[FN_COUNT];
	u64 returns[FN_COUNT];
	u64 losses[LOSS_COUNT];
	u64 n_sampled;
	u64 n_allocations; /* blocks that came under observation */
	u64 n_frees;	   /* and that left it again */
	u64 stops[STACK_STOPS];
};

/* Types of events: these, and enum alloc_function from FN_MMAP on. */
enum alloc_event_type {
	EVENT_FORK = 100, /* other: the child */
	EVENT_EXEC = 101, /* other: the new image */
	EVENT_EXIT = 102,
};

struct alloc_event {
	u32 type;
	u32 tgid;
	u32 generation;
	u32 other;
	u64 time_ns; /* CLOCK_MONOTONIC */
	u64 stack_id;
	u64 result;	  /* what the function returned */
	u64 arguments[4]; /* its arguments; of brk: the new and the old end of the heap */
};

/* `threads`: what a thread is in the middle of. Its own, so that no other can write into it, as per-CPU memory allows
 * when programs are preempted. */
struct thread_state {
	u32 function; /* enum alloc_function of the call we wait for, or FN_NONE */
	u32 generation;
	u64 stack_top; /* the stack pointer when that call has returned */
	u64 caller;    /* where it returns to */
	u64 arguments[4];
	u64 size;	 /* of the block */
	u64 old_address; /* realloc: the block that was taken out of `blocks`, */
	u32 has_old;	 /* if there was one */
	u32 is_chosen;	 /* 0: only the old block matters */
	struct block block, old;
	u64 tail_top, tail_caller; /* a realloc(NULL, n) that was passed over: the malloc it jumps to is, too */
	struct stack_walk walk;
};

/* What sweep() is told, and answers. The one value of `sweeps`. */
struct alloc_sweep {
	u64 shift; /* the new share of addresses */
	u64 n_dropped;
	u64 n_kept;
};

#endif
