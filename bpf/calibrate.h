/* SPDX-License-Identifier: GPL-2.0-only */
/* calibrate.h: what calibrate.bpf.c shares with gprof_lite/probes/costs.py. */
#ifndef GPROF_LITE_CALIBRATE_H
#define GPROF_LITE_CALIBRATE_H

#define PLACES 64

/* The one value of `callers`: calls from this code are counted. */
struct caller_range {
	u64 start, end;
};

/* `calls`, per CPU, by place: the low byte of a probe's cookie. Sums, so that order does not matter. */
struct place_calls {
	u64 n_calls;
	u64 arguments[3];
	u64 n_returns;
	u64 result;
	u64 n_others; /* from elsewhere, or not to be told from where */
};

#endif
