/* SPDX-License-Identifier: GPL-2.0-only */
/* core_fixes.bpf.h: where kernels differ. Each function hides one change and names the commit that made it.
 *
 * Under bcc the headers decide. Where they are not those of the running kernel (HEADERS_MATCH is 0), what would be read
 * by them is not read: the answer is 0, "not known".
 */
#ifndef GPROF_LITE_CORE_FIXES_H
#define GPROF_LITE_CORE_FIXES_H

#ifndef FOR_BCC

/* cf25e24db61c ("time: Rename tsk->real_start_time to ->start_boottime"), Linux 5.5. */
struct task_struct___before_5_5 {
	u64 real_start_time;
} __attribute__((preserve_access_index));

/* Nanoseconds since boot, suspended time included, at which a task started: what /proc/PID/stat shows in ticks. */
static __always_inline u64 start_boottime_ns(const struct task_struct *task)
{
	const struct task_struct___before_5_5 *old = (const void *)task;

	if (bpf_core_field_exists(task->start_boottime))
		return BPF_CORE_READ(task, start_boottime);
	return BPF_CORE_READ(old, real_start_time);
}

/* 67c0496e87d1 ("kernfs: convert kernfs_node->id from union kernfs_node_id to u64"), Linux 5.5: the same 8 bytes. */
static __always_inline u64 cgroup_id(const struct cgroup *cgroup)
{
	const struct kernfs_node *node = BPF_CORE_READ(cgroup, kn);
	u64 id = 0;

	bpf_core_read(&id, sizeof(id), &node->id);
	return id;
}

/* f1a7941243c1 ("mm: convert mm's rss stats into percpu_counter"), Linux 6.2. Of such a
 * counter each CPU keeps up to max(32, 2 * n_cpus) pages to itself. To add those up takes __per_cpu_offset, and kernels
 * without CONFIG_KALLSYMS_ALL give no program any variable's address. Before 6.2 threads kept up to 64 pages each. */
struct mm_rss_stat {
	s64 count[4];
};

struct mm_struct___before_6_2 {
	struct mm_rss_stat rss_stat;
} __attribute__((preserve_access_index));

/* One of the counters of resident pages of an address space; never negative. */
static __always_inline u64 counted_pages(const struct mm_struct *mm, enum memory_counter which)
{
	const struct mm_struct___before_6_2 *old = (const void *)mm;
	s64 pages = 0;

	/* A number that the compiler does not know cannot be part of a relocated access: sizes are multiplied here. */
	if (bpf_core_type_exists(struct mm_rss_stat)) {
		bpf_probe_read_kernel(&pages, sizeof(pages), (const char *)&old->rss_stat + which * sizeof(pages));
	} else {
		const char *counters = (const char *)&mm->rss_stat;
		const struct percpu_counter *counter;

		counter = (const void *)(counters + which * bpf_core_type_size(struct percpu_counter));
		pages = BPF_CORE_READ(counter, count);
	}
	return pages > 0 ? pages : 0;
}

/* 72ba14deb40a ("mm: update mark_victim tracepoints fields"), Linux 6.8 and stable kernels: the tracepoint's first
 * argument is the task; before, its pid. */
static __always_inline bool victim_is_a_task(void)
{
	return bpf_core_field_exists(struct trace_event_raw_mark_victim, uid);
}

#else

static __always_inline u64 start_boottime_ns(const struct task_struct *task)
{
#if !HEADERS_MATCH
	return 0;
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(5, 5, 0)
	return KERNEL_READ(task, start_boottime);
#else
	return KERNEL_READ(task, real_start_time);
#endif
}

#endif

#endif
