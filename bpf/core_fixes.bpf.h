/* SPDX-License-Identifier: GPL-2.0-only */
/* core_fixes.bpf.h: where kernels differ. Each function hides one change and names the commit that made it.
 * Linux 5.8 is the oldest: what user space reads comes through ring buffers (457f44363a88).
 *
 * Under bcc the headers decide. Where they are not those of the running kernel (HEADERS_MATCH is 0), what would be read
 * by them is not read: the answer is 0, "not known".
 */
#ifndef GPROF_LITE_CORE_FIXES_H
#define GPROF_LITE_CORE_FIXES_H

#ifndef FOR_BCC

/* Nanoseconds since boot, suspended time included, at which a task started: what /proc/PID/stat shows in ticks. */
static __always_inline u64 start_boottime_ns(const struct task_struct *task)
{
	return BPF_CORE_READ(task, start_boottime);
}

/* The id of a cgroup: the inode number of its directory. */
static __always_inline u64 cgroup_id(const struct cgroup *cgroup)
{
	return BPF_CORE_READ(cgroup, kn, id);
}

/* f1a7941243c1 ("mm: convert mm's rss stats into percpu_counter"), Linux 6.2. Of such a
 * counter each CPU keeps up to max(32, 2 * n_cpus) pages to itself. To add those up takes __per_cpu_offset, and kernels
 * without CONFIG_KALLSYMS_ALL give no program any variable's address. Before 6.2 threads kept up to 64 pages each. */
struct atomic_counter {
	long long counter;
};

struct mm_rss_stat {
	struct atomic_counter count[4];
};

struct mm_struct___before_6_2 {
	struct mm_rss_stat rss_stat;
} __attribute__((preserve_access_index));

/* One of the counters of resident pages of an address space; never negative. */
static __always_inline u64 counted_pages(const struct mm_struct *mm, enum memory_counter which)
{
	const struct mm_struct___before_6_2 *old = (const void *)mm;
	s64 pages = 0;

	/* A member is asked for, not a type: for a type that the kernel does not have, libbpf looks into all modules,
	 * which takes CAP_SYS_ADMIN. And a number that the compiler does not know cannot be part of a relocated access,
	 * so sizes are multiplied here. */
	if (bpf_core_field_exists(old->rss_stat.count)) {
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
#if HEADERS_MATCH
	return KERNEL_READ(task, start_boottime);
#else
	return 0;
#endif
}

#endif

#endif
