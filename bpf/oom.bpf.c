// SPDX-License-Identifier: GPL-2.0-only
/* oom.bpf.c: which process the kernel kills because memory has run out, with its identity and what it had.
 *
 * The kernel marks its victim while that still has its memory; current is whoever needed a page, not the victim. Where
 * the tracepoint hands out the task, one record says all (note_task). Else it says a pid (note_pid), and who that was
 * is told when the process ends (note_end): by then user space may find nothing in /proc any more.
 */
#include "compat.h"
#include "oom.h"

MAP_RING(events, 1 << 16)
/* Victims of which only the pid is known yet. */
MAP_HASH(victims, u32, u64, 256)
/* [0]: records that did not fit into the ring. [1]: victims that did not fit into the map. */
MAP_ARRAY(losses, u32, u64, 2)

TUNABLE(u32, page_bytes, 4096)
/* Where the tracepoint's fields are (its `format` in tracefs); 0: it has none such. Sizes there are KiB. */
TUNABLE(u32, total_vm_at, 0)
TUNABLE(u32, anon_at, 0)
TUNABLE(u32, file_at, 0)
TUNABLE(u32, shmem_at, 0)
TUNABLE(u32, uid_at, 0)
TUNABLE(u32, comm_at, 0)

#define PID_AT 8

static __always_inline void count_loss(u32 which)
{
	u64 *n = map_lookup(losses, &which);

	if (n)
		__sync_fetch_and_add(n, 1);
}

/* A new record; NULL and counted when the ring is full. */
static __always_inline struct oom_record *begin(u32 kind, u32 pid)
{
	struct oom_record *record = ring_reserve(events, sizeof(*record));

	if (!record) {
		count_loss(0);
		return NULL;
	}
	__builtin_memset(record, 0, sizeof(*record));
	record->kind = kind;
	record->pid = pid;
	record->time_ns = bpf_ktime_get_ns();
	return record;
}

#ifndef FOR_BCC
static __always_inline u64 memory_cgroup_of(const struct css_set *set)
{
	struct cgroup_subsys_state *state = NULL;
	u64 place;

	if (!bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		return 0;
	place = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id) * sizeof(state);
	bpf_probe_read_kernel(&state, sizeof(state), (const char *)&set->subsys + place);
	return state ? cgroup_id(BPF_CORE_READ(state, cgroup)) : 0;
}

static __always_inline void describe(struct oom_record *record, const struct task_struct *task)
{
	const struct task_struct *leader = BPF_CORE_READ(task, group_leader);
	const struct mm_struct *mm = BPF_CORE_READ(task, mm);
	const struct css_set *set = BPF_CORE_READ(task, cgroups);

	record->start_boottime_ns = start_boottime_ns(leader);
	record->uid = BPF_CORE_READ(task, cred, uid.val);
	BPF_CORE_READ_STR_INTO(&record->comm, leader, comm);
	if (set) {
		record->cgroup_id = cgroup_id(BPF_CORE_READ(set, dfl_cgrp));
		record->memory_cgroup_id = memory_cgroup_of(set);
	}
	if (mm) {
		record->total_vm_bytes = (u64)BPF_CORE_READ(mm, total_vm) * page_bytes;
		record->anon_bytes = counted_pages(mm, MM_ANONPAGES) * page_bytes;
		record->file_bytes = counted_pages(mm, MM_FILEPAGES) * page_bytes;
		record->shmem_bytes = counted_pages(mm, MM_SHMEMPAGES) * page_bytes;
	}
}

/* Run by hand: does the tracepoint hand out tasks here? */
RAW_TRACEPOINT(gprof_lite_ask, ask_layout)
{
	return victim_is_a_task();
}

RAW_TRACEPOINT(mark_victim, note_task)
{
	const struct task_struct *task = (const void *)RAW_ARGUMENT(ctx, 0);
	struct oom_record *record = begin(OOM_VICTIM, BPF_CORE_READ(task, tgid));

	if (!record)
		return 0;
	describe(record, task);
	ring_submit(record);
	return 0;
}
#endif

static __always_inline u64 field(void *ctx, u32 at)
{
	u64 value = 0;

	if (at)
		bpf_probe_read_kernel(&value, sizeof(value), (char *)ctx + at);
	return value;
}

TRACEPOINT(oom, mark_victim, note_pid)
{
	u32 pid = (u32)field(ctx, PID_AT);
	u64 now = bpf_ktime_get_ns();
	struct oom_record *record;

	if (map_update(victims, &pid, &now, BPF_ANY))
		count_loss(1);
	record = begin(OOM_PID, pid);
	if (!record)
		return 0;
	record->total_vm_bytes = field(ctx, total_vm_at) * 1024;
	record->anon_bytes = field(ctx, anon_at) * 1024;
	record->file_bytes = field(ctx, file_at) * 1024;
	record->shmem_bytes = field(ctx, shmem_at) * 1024;
	record->uid = (u32)field(ctx, uid_at);
	/* A string's place: its offset in the low half. */
	if (comm_at)
		bpf_probe_read_kernel_str(record->comm, sizeof(record->comm),
					  (char *)ctx + (field(ctx, comm_at) & 0xffff));
	ring_submit(record);
	return 0;
}

/* The last thread of a victim, or the marked one, ends. Runs in the victim itself. */
RAW_TRACEPOINT(sched_process_exit, note_end)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = (u32)id, tgid = id >> 32;
	struct oom_record *record;
	u32 marked = tid;

	if (!map_lookup(victims, &marked)) {
		marked = tgid;
		if (!map_lookup(victims, &marked))
			return 0;
	}
	map_delete(victims, &marked);
	record = begin(OOM_IDENTITY, tgid);
	if (!record)
		return 0;
	record->marked = marked;
	record->start_boottime_ns = start_boottime_ns(process_of(running_task()));
	record->cgroup_id = bpf_get_current_cgroup_id();
	record->uid = (u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(record->comm, sizeof(record->comm));
	ring_submit(record);
	return 0;
}
