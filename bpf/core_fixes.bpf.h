/* SPDX-License-Identifier: GPL-2.0-only */
/* core_fixes.bpf.h: where kernels differ. Each function hides one change and names the commit that made it. */
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

#else

static __always_inline u64 start_boottime_ns(const struct task_struct *task)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 5, 0)
	return KERNEL_READ(task, start_boottime);
#else
	return KERNEL_READ(task, real_start_time);
#endif
}

#endif

#endif
