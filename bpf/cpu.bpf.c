// SPDX-License-Identifier: GPL-2.0-only
/* cpu.bpf.c: where the CPUs spend their time, per stack, added up in the kernel.
 *
 * Runs at a clock's tick on each CPU, in its interrupt. The stack of user space is unwound by tables for processes that
 * user space made a list of mappings for (unwind.h), and by frame pointers for all others; that of the kernel is the
 * kernel's own. User space reads `samples` once in a while, and takes out what it read.
 *
 * All maps are preallocated: before Linux 6.1 a program in an interrupt may use no others.
 */
#include "compat.h"
#include "cpu.h"

MAP_READY_HASH(samples, struct cpu_key, u64, 8192)
MAP_READY_HASH(stacks, u64, struct stack_record, 4096)
MAP_STACKS(kernel_stacks, 2048)
MAP_PERCPU_ARRAY(counters, u32, struct cpu_counters, 1)
/* The kernel lets no program of perf events run within another one on the same CPU. */
MAP_PERCPU_ARRAY(walks, u32, struct stack_walk, 1)

/* struct pt_regs, from rbp on as much as is needed. Its own type: some members are shorter on new kernels. */
struct user_registers {
	u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp;
};

#define USER_MODE 3 /* in the low bits of cs */

/* Where the thread is in user space, or was when it entered the kernel. */
static __always_inline bool user_registers(struct bpf_perf_event_data *ctx, struct stack_walk *walk,
					   struct cpu_counters *mine)
{
	struct user_registers saved = {};

	if ((ctx->regs.cs & USER_MODE) == USER_MODE) {
		walk->at.pc = ctx->regs.rip;
		walk->at.sp = ctx->regs.rsp;
		walk->at.bp = ctx->regs.rbp;
		return true;
	}
	if (bpf_probe_read_kernel(&saved, sizeof(saved), (void *)bpf_task_pt_regs(bpf_get_current_task_btf()))) {
		mine->bad_read++;
		return false;
	}
	walk->at.pc = saved.ip;
	walk->at.sp = saved.sp;
	walk->at.bp = saved.bp;
	/* The kernel's own threads have none. */
	return (saved.cs & USER_MODE) == USER_MODE;
}

/* The id of the stack of user space; NO_STACK: there is none, or no room for it. */
static __always_inline u64 user_stack(struct stack_walk *walk, struct cpu_counters *mine, u32 tgid)
{
	struct stack_record *known;
	u32 stop;

	walk->from = STACK_AT_CODE;
	walk->record.tgid = tgid;
	walk->record.image = 0;
	walk->record.tag = CPU_TAG;
	collect_stack(walk, NULL);
	stop = walk->record.stop;
	if (stop < STACK_STOPS)
		mine->stops[stop]++;
	known = map_lookup(stacks, &walk->id);
	if (!known) {
		if (map_update(stacks, &walk->id, &walk->record, BPF_ANY)) {
			mine->stacks_full++;
			return NO_STACK;
		}
	} else if (known->check != walk->record.check) {
		mine->hash_collisions++;
		return NO_STACK;
	}
	return walk->id;
}

PROGRAM_PERF_EVENT(sample_cpu)
{
	u64 id = bpf_get_current_pid_tgid(), one = 1, *n;
	struct cpu_key key = {.tgid = id >> 32};
	struct cpu_counters *mine;
	struct stack_walk *walk;
	u32 zero = 0;

	mine = map_lookup(counters, &zero);
	walk = map_lookup(walks, &zero);
	if (!mine || !walk)
		return 0;
	if (!(u32)id) {
		mine->n_idle++;
		return 0;
	}
	mine->n_samples++;
	if (user_registers(ctx, walk, mine))
		key.stack_id = user_stack(walk, mine, key.tgid);
	key.kernel_stack = -1;
	if ((ctx->regs.cs & USER_MODE) != USER_MODE)
		key.kernel_stack = bpf_get_stackid(ctx, &kernel_stacks, 0);
	n = map_lookup(samples, &key);
	if (n) {
		__sync_fetch_and_add(n, 1);
	} else if (map_update(samples, &key, &one, BPF_NOEXIST)) {
		/* Another CPU was faster, or there is no room. */
		n = map_lookup(samples, &key);
		if (n)
			__sync_fetch_and_add(n, 1);
		else
			mine->samples_full++;
	}
	return 0;
}
