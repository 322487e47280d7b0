/* SPDX-License-Identifier: GPL-2.0-only */
/* calibrate.bpf.c: counts calls of which everything is known, to see whether the probes of this kernel see them.
 *
 * Attached to a child of our own at the places that were chosen for real targets. The cookie of a probe is its place
 * (low byte), how many bytes the function had pushed there (next byte), and where the arguments are (arguments.h).
 */
#include "compat.h"
#include "arguments.h"
#include "calibrate.h"

MAP_ARRAY(callers, u32, struct caller_range, 1)
MAP_PERCPU_ARRAY(calls, u32, struct place_calls, PLACES)

/* The sums of the probe that was hit, if the call came from the code that we watch. */
static __always_inline struct place_calls *calls_of(struct pt_regs *ctx, bool is_return)
{
	u64 cookie = bpf_get_attach_cookie(ctx), caller = PT_REGS_IP(ctx);
	u32 place = cookie & (PLACES - 1), only = 0;
	struct caller_range *range = map_lookup(callers, &only);
	struct place_calls *sums = map_lookup(calls, &place);

	if (!range || !sums)
		return NULL;
	/* Before the function did anything else, its return address is under what it pushed. */
	if (!is_return &&
	    bpf_probe_read_user(&caller, sizeof(caller), (void *)(PT_REGS_SP(ctx) + (cookie >> 8 & 0xff))))
		caller = 0;
	if (caller >= range->start && caller < range->end)
		return sums;
	sums->n_others++;
	return NULL;
}

static __always_inline void count_call(struct pt_regs *ctx)
{
	struct place_calls *sums = calls_of(ctx, false);
	u64 cookie = bpf_get_attach_cookie(ctx);

	if (!sums)
		return;
	sums->n_calls++;
	sums->arguments[0] += probed_argument(ctx, cookie, 0);
	sums->arguments[1] += probed_argument(ctx, cookie, 1);
	sums->arguments[2] += probed_argument(ctx, cookie, 2);
}

PROGRAM_KPROBE("kprobe/count_entry", count_entry)
{
	count_call(ctx);
	return 0;
}

PROGRAM_KPROBE("kprobe/count_return", count_return)
{
	struct place_calls *sums = calls_of(ctx, true);

	if (!sums)
		return 0;
	sums->n_returns++;
	sums->result += PT_REGS_RC(ctx);
	return 0;
}

/* As a session: the return of no call is of interest. */
PROGRAM_KPROBE("kprobe/skip_return", skip_return)
{
	count_call(ctx);
	return 1;
}
