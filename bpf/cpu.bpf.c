// SPDX-License-Identifier: GPL-2.0-only
/* cpu.bpf.c: where CPU time goes: samples of every CPU, counted here by process, thread name and stack.
 *
 * One perf event on each CPU runs take_sample() so many times a second. What it meets is added up in maps, which user
 * space reads once a window: nothing is written for each sample, and nobody is woken.
 *
 * Windows follow each other without a gap: `turn` is the number of the window, which is part of every key and id. When
 * user space has set the next one, those of the last are complete as soon as no program that began in it is running.
 *
 * Tables for unwinding belong to a program's image, so they are forgotten here, at once, when it execs or ends.
 */
#include "compat.h"
#include "cpu.h"

#define USER_SPACE_END (1ull << 63) /* addresses of user space lie below, those of the kernel above */

MAP_HASH(counts, struct cpu_key, u64, 8192)
MAP_HASH(stacks, u64, struct stack_record, 4096)
MAP_HASH(kernel_stacks, u64, struct kernel_stack, 4096)
MAP_HASH(processes, struct cpu_process, struct cpu_activity, 8192)
/* The processes asked for, and when they started; CHOSEN_MAX in user space. */
MAP_HASH(targets, u32, u64, 4096)
MAP_ARRAY(turns, u32, u32, 1)
/* Processes whose stacks user space may want to make whole, while they are still there. */
MAP_RING(met, 65536)
MAP_PERCPU_ARRAY(counters, u32, struct cpu_counters, 2)
/* The kernel does not let this program run within itself on one CPU, so one for each is enough. */
MAP_PERCPU_ARRAY(walks, u32, struct stack_walk, 1)
MAP_PERCPU_ARRAY(kernel_walks, u32, struct kernel_stack, 1)

TUNABLE(u32, only_targets, 0)
TUNABLE(u32, task_leader_at, MEMBER_AT(struct task_struct, group_leader))
TUNABLE(u32, task_start_at, MEMBER_AT(struct task_struct, start_boottime))
TUNABLE(u32, task_exec_id_at, MEMBER_AT(struct task_struct, self_exec_id))
TUNABLE(u32, task_tgid_at, MEMBER_AT(struct task_struct, tgid))
TUNABLE(u32, task_mm_at, MEMBER_AT(struct task_struct, mm))
TUNABLE(u32, task_signal_at, MEMBER_AT(struct task_struct, signal))
TUNABLE(u32, signal_live_at, MEMBER_AT(struct signal_struct, live))

static __always_inline u64 read_word_at(u64 object, u32 offset)
{
	u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), (void *)(object + offset));
	return word;
}

static __always_inline u32 read_half_at(u64 object, u32 offset)
{
	u32 half = 0;

	bpf_probe_read_kernel(&half, sizeof(half), (void *)(object + offset));
	return half;
}

static __always_inline u64 start_of(u64 task)
{
	return read_word_at(read_word_at(task, task_leader_at), task_start_at);
}

/* Where the thread was in user space: now, or when it entered the kernel. False: it has none, or is about to end. */
static __always_inline bool user_registers(struct bpf_perf_event_data *ctx, struct frame_registers *at)
{
	struct pt_regs saved;

	if (PT_REGS_IP(&ctx->regs) < USER_SPACE_END) {
		at->pc = PT_REGS_IP(&ctx->regs);
		at->sp = PT_REGS_SP(&ctx->regs);
		at->bp = PT_REGS_FP(&ctx->regs);
		return at->pc != 0;
	}
	if (!read_word_at(bpf_get_current_task(), task_mm_at))
		return false;
	if (bpf_probe_read_kernel(&saved, sizeof(saved), (void *)bpf_task_pt_regs(bpf_get_current_task_btf())))
		return false;
	at->pc = PT_REGS_IP(&saved);
	at->sp = PT_REGS_SP(&saved);
	at->bp = PT_REGS_FP(&saved);
	return at->pc && at->pc < USER_SPACE_END;
}

/* The stack of user space, kept; its id is in the key. Returns whether that could be done. */
static __always_inline bool keep_user_stack(struct bpf_perf_event_data *ctx, struct cpu_key *key,
					    struct cpu_counters *mine, bool *is_cut)
{
	struct stack_walk *walk = ONLY(walks);
	const struct stack_record *known;
	u32 stop;

	if (!walk || !user_registers(ctx, &walk->at))
		return true;
	walk->from = STACK_AT_CODE;
	walk->record.tgid = key->process.tgid;
	walk->record.image = key->process.image;
	walk->record.tag = key->turn;
	collect_stack(walk, NULL);
	stop = walk->record.stop;
	mine->n_walks++;
	if (stop < STACK_STOPS)
		mine->stops[stop]++;
	*is_cut = stop != STACK_COMPLETE;
	key->user_stack = walk->id;
	known = map_lookup(stacks, &walk->id);
	if (!known) {
		if (!map_update(stacks, &walk->id, &walk->record, BPF_ANY))
			return true;
		mine->losses[LOSS_STACKS_FULL]++;
		return false;
	}
	if (known->check == walk->record.check && known->tgid == walk->record.tgid)
		return true;
	mine->losses[LOSS_COLLISION]++;
	return false;
}

/* Two hashes of a stack: its id, and its check. */
STACK_FUNCTION u64 hash_frames(struct kernel_stack *stack, u32 turn)
{
	u64 id = mix(turn, 0), check = 1;

	if (!stack)
		return 0;
	for (u32 i = 0; i < KERNEL_DEPTH; i++) {
		u64 address;

		if (i >= stack->n_frames)
			break;
		address = stack->frames[i];
		id = mix(id, address);
		check = (check << 7 | check >> 57) + address;
	}
	stack->check = check;
	return id;
}

/* The same of the kernel's stack, which no other process's is told from. */
static __always_inline bool keep_kernel_stack(struct bpf_perf_event_data *ctx, struct cpu_key *key,
					      struct cpu_counters *mine)
{
	struct kernel_stack *stack = ONLY(kernel_walks);
	const struct kernel_stack *known;
	long n_bytes;
	u64 id;

	if (!stack || PT_REGS_IP(&ctx->regs) < USER_SPACE_END)
		return true;
	n_bytes = bpf_get_stack(ctx, stack->frames, sizeof(stack->frames), 0);
	if (n_bytes <= 0)
		return true;
	stack->turn = key->turn;
	stack->n_frames = (u32)n_bytes / 8;
	id = hash_frames(stack, key->turn);
	key->kernel_stack = id;
	known = map_lookup(kernel_stacks, &id);
	if (!known) {
		if (!map_update(kernel_stacks, &id, stack, BPF_ANY))
			return true;
		mine->losses[LOSS_STACKS_FULL]++;
		return false;
	}
	if (known->check == stack->check)
		return true;
	mine->losses[LOSS_COLLISION]++;
	return false;
}

/* The second time: most processes that are met once end before anybody could look at them. */
static __always_inline void tell(const struct cpu_process *process)
{
	struct cpu_process *record = ring_reserve(met, sizeof(*record));

	/* Full: user space meets it in `processes`, later. */
	if (!record)
		return;
	*record = *process;
	ring_submit_now(record);
}

static __always_inline void note_process(const struct cpu_process *process, bool is_cut)
{
	struct cpu_activity *known = map_lookup(processes, process);
	struct cpu_activity first = {.n_samples = 1, .n_cut = is_cut};

	if (known) {
		known->last_ns = bpf_ktime_get_boot_ns();
		ADD(known->n_samples, 1);
		if (is_cut && __sync_fetch_and_add(&known->n_cut, 1) == 1)
			tell(process);
		return;
	}
	first.first_ns = first.last_ns = bpf_ktime_get_boot_ns();
	/* Full: its samples are counted all the same. */
	map_update(processes, process, &first, BPF_NOEXIST);
}

static __always_inline void count(const struct cpu_key *key, struct cpu_counters *mine)
{
	u64 *n = map_lookup(counts, key), one = 1;

	if (n) {
		ADD(*n, 1);
		return;
	}
	if (!map_update(counts, key, &one, BPF_NOEXIST))
		return;
	/* Another CPU may have been first. */
	n = map_lookup(counts, key);
	if (n)
		ADD(*n, 1);
	else
		mine->losses[LOSS_COUNTS_FULL]++;
}

/* Has it been asked for? One that has its pid by now has not. */
static __always_inline bool is_wanted(const struct cpu_process *process)
{
	u64 *start_ns;

	if (!only_targets)
		return true;
	start_ns = map_lookup(targets, &process->tgid);
	return start_ns && *start_ns / 10000000 == process->start_boottime_ns / 10000000;
}

static __always_inline void sample(struct bpf_perf_event_data *ctx, u32 turn, struct cpu_counters *mine)
{
	u64 task = bpf_get_current_task();
	struct cpu_key key = {.turn = turn};
	bool is_cut = false;

	key.process.tgid = bpf_get_current_pid_tgid() >> 32;
	key.process.image = read_half_at(task, task_exec_id_at);
	key.process.start_boottime_ns = start_of(task);
	if (!is_wanted(&key.process)) {
		mine->n_passed_over++;
		return;
	}
	bpf_get_current_comm(key.comm, sizeof(key.comm));
	if (!keep_user_stack(ctx, &key, mine, &is_cut) || !keep_kernel_stack(ctx, &key, mine))
		return;
	count(&key, mine);
	note_process(&key.process, is_cut);
}

PROGRAM_PERF_EVENT(take_sample)
{
	u64 began_ns = bpf_ktime_get_ns();
	struct cpu_counters *mine;
	u32 *turn = ONLY(turns);
	u32 now, parity;

	if (!turn)
		return 0;
	now = *(volatile u32 *)turn;
	parity = now & 1;
	mine = map_lookup(counters, &parity);
	if (!mine)
		return 0;
	mine->n_begun++;
	sample(ctx, now, mine);
	mine->spent_ns += bpf_ktime_get_ns() - began_ns;
	mine->n_done++;
	return 0;
}

/* A process that was asked for starts another: asked for too. */
RAW_TRACEPOINT(sched_process_fork, follow_child)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32, child = read_half_at(RAW_ARGUMENT(ctx, 1), task_tgid_at);
	u64 start_ns;

	/* The same: only a new thread. */
	if (child == tgid || !map_lookup(targets, &tgid))
		return 0;
	start_ns = read_word_at(RAW_ARGUMENT(ctx, 1), task_start_at);
	map_update(targets, &child, &start_ns, BPF_ANY);
	return 0;
}

RAW_TRACEPOINT(sched_process_exec, forget_program)
{
	forget_mappings(bpf_get_current_pid_tgid() >> 32);
	return 0;
}

RAW_TRACEPOINT(sched_process_exit, forget_process)
{
	u64 signals = read_word_at(bpf_get_current_task(), task_signal_at);
	u32 tgid = bpf_get_current_pid_tgid() >> 32;

	/* Threads that live on. */
	if (read_half_at(signals, signal_live_at))
		return 0;
	forget_mappings(tgid);
	if (only_targets)
		map_delete(targets, &tgid);
	return 0;
}
