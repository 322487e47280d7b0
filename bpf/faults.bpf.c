// SPDX-License-Identifier: GPL-2.0-only
/* faults.bpf.c: who touches memory for the first time, per stack.
 *
 * A page that is written to for the first time is given at that moment: so the faults of a process say where its growth
 * comes from, whatever allocates for it, and cost it nothing when it does not grow. They do not say what is freed again
 * without being given back. Only writes of the program itself are seen, not those of the kernel on its behalf (read(2)
 * into a new buffer), and a huge page looks like one of 4 KiB.
 */
#include "compat.h"
#include "faults.h"

#define WRITE_FAULT 2 /* arch/x86/include/asm/trap_pf.h: X86_PF_WRITE */

MAP_HASH(targets, u32, u32, 64)
MAP_HASH(code, u32, struct code_table, 64)
MAP_HASH(faults, u64, struct fault_totals, 4096)
MAP_HASH(stacks, u64, struct stack_record, 4096)
MAP_ARRAY(settings, u32, struct fault_settings, 1)
/* For FIND_OR_MAKE. */
MAP_ARRAY(blank_totals, u32, struct fault_totals, 1)
MAP_PERCPU_ARRAY(counters, u32, struct fault_counters, 1)
/* The kernel does not let this program run within itself on one CPU, so one for each is enough. */
MAP_PERCPU_ARRAY(walks, u32, struct stack_walk, 1)

static __always_inline struct fault_totals *totals_of(struct stack_walk *walk)
{
	struct fault_totals *totals = map_lookup(faults, &walk->id);

	if (totals)
		return totals;
	if (map_update(stacks, &walk->id, &walk->record, BPF_ANY))
		return NULL;
	totals = FIND_OR_MAKE(faults, &walk->id, blank_totals);
	if (totals) {
		totals->tgid = walk->record.tgid;
		totals->image = walk->record.image;
	}
	return totals;
}

/* Source: TP_PROTO of arch/x86/include/asm/trace/exceptions.h: address, regs, error_code. */
RAW_TRACEPOINT(page_fault_user, touch_page)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u32 *image = map_lookup(targets, &tgid);
	struct fault_settings *rules;
	struct fault_counters *mine;
	struct fault_totals *totals;
	struct stack_walk *walk;
	struct pt_regs registers;
	u64 epoch;

	if (!image || !(RAW_ARGUMENT(ctx, 2) & WRITE_FAULT))
		return 0;
	rules = ONLY(settings);
	mine = ONLY(counters);
	walk = ONLY(walks);
	if (!rules || !mine || !walk)
		return 0;
	mine->n_hits++;
	if (rules->rate > 1 && bpf_get_prandom_u32() % (u32)rules->rate)
		return 0;
	if (bpf_probe_read_kernel(&registers, sizeof(registers), (void *)RAW_ARGUMENT(ctx, 1))) {
		mine->bad_read++;
		return 0;
	}
	mine->n_sampled++;
	walk->at.pc = PT_REGS_IP(&registers);
	walk->at.sp = PT_REGS_SP(&registers);
	walk->at.bp = PT_REGS_FP(&registers);
	walk->from = STACK_AT_CODE;
	walk->record.tgid = tgid;
	walk->record.image = *image;
	walk->record.tag = FAULT_TAG;
	collect_stack(walk, map_lookup(code, &tgid));
	totals = totals_of(walk);
	if (!totals) {
		mine->stacks_full++;
		return 0;
	}
	epoch = epoch_now(rules->epoch_zero_ns, rules->epoch_ns, rules->n_epochs);
	ADD(totals->n_faults, 1);
	ADD(totals->epochs[epoch & (EPOCHS - 1)], 1);
	return 0;
}
