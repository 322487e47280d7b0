/* SPDX-License-Identifier: GPL-2.0-only */
/* faults.h: what faults.bpf.c shares with gprof_lite/probes/page_faults.py. */
#ifndef GPROF_LITE_FAULTS_H
#define GPROF_LITE_FAULTS_H

#include "account.h"
#include "stack.h"

#define FAULT_TAG 100 /* beyond enum alloc_function: the same addresses are another stack */

struct fault_settings {
	u64 rate; /* one in this many is taken */
	u64 epoch_ns;
	u64 epoch_zero_ns; /* CLOCK_MONOTONIC */
	u64 n_epochs;
};

/* `faults`: by stack id. */
struct fault_totals {
	u32 tgid;
	u32 image;
	u64 n_faults; /* taken ones, not weighted */
	u64 epochs[EPOCHS];
};

struct fault_counters {
	u64 n_hits; /* write faults of targets */
	u64 n_sampled;
	u64 stacks_full;
	u64 bad_read;
};

#endif
