// SPDX-License-Identifier: GPL-2.0-only
/* walks.bpf.c: stacks taken and thrown away, three ways, at a probe and at a clock's tick. For bench/unwind.py. */
#include "compat.h"
#include "stack.h"

struct walk_sums {
	u64 n_stacks;
	u64 n_frames;
	u64 n_complete;
};

MAP_PERCPU_ARRAY(walks, u32, struct stack_walk, 2)
MAP_PERCPU_ARRAY(sums, u32, struct walk_sums, 1)

TUNABLE(u32, only_tgid, 0)

static __always_inline bool is_wanted(void)
{
	return bpf_get_current_pid_tgid() >> 32 == only_tgid;
}

static __always_inline void walk_tables(u64 pc, u64 sp, u64 bp, u32 from, u32 slot)
{
	struct stack_walk *walk = map_lookup(walks, &slot);
	u32 zero = 0;
	struct walk_sums *mine = map_lookup(sums, &zero);

	if (!walk || !mine)
		return;
	walk->at.pc = pc;
	walk->at.sp = sp;
	walk->at.bp = bp;
	walk->from = from;
	walk->record.tgid = only_tgid;
	collect_stack(walk, NULL);
	mine->n_stacks++;
	mine->n_frames += walk->record.n_frames;
	mine->n_complete += walk->record.stop == STACK_COMPLETE;
}

static __always_inline void walk_kernel(void *ctx, u32 slot)
{
	struct stack_walk *walk = map_lookup(walks, &slot);
	u32 zero = 0;
	struct walk_sums *mine = map_lookup(sums, &zero);
	long n_bytes;

	if (!walk || !mine)
		return;
	n_bytes = bpf_get_stack(ctx, walk->record.frames, sizeof(walk->record.frames), BPF_F_USER_STACK);
	mine->n_stacks++;
	if (n_bytes > 0)
		mine->n_frames += (u64)n_bytes / 8;
}

PROGRAM_KPROBE("kprobe/probe_nothing", probe_nothing)
{
	return 0;
}

PROGRAM_KPROBE("kprobe/probe_tables", probe_tables)
{
	walk_tables(PT_REGS_IP(ctx), PT_REGS_SP(ctx), PT_REGS_FP(ctx), STACK_AT_FUNCTION, 0);
	return 0;
}

PROGRAM_KPROBE("kprobe/probe_kernel", probe_kernel)
{
	walk_kernel(ctx, 0);
	return 0;
}

#define IN_USER_SPACE(ctx) (((ctx)->regs.cs & 3) == 3)

PROGRAM_PERF_EVENT(tick_nothing)
{
	return !is_wanted() || !IN_USER_SPACE(ctx);
}

PROGRAM_PERF_EVENT(tick_tables)
{
	if (is_wanted() && IN_USER_SPACE(ctx))
		walk_tables(ctx->regs.rip, ctx->regs.rsp, ctx->regs.rbp, STACK_AT_CODE, 1);
	return 0;
}

PROGRAM_PERF_EVENT(tick_kernel)
{
	if (is_wanted() && IN_USER_SPACE(ctx))
		walk_kernel(ctx, 1);
	return 0;
}
