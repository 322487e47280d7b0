/* SPDX-License-Identifier: GPL-2.0-only */
/* task.h: what our programs ask about tasks, in words. */
#ifndef GPROF_LITE_TASK_H
#define GPROF_LITE_TASK_H

static __always_inline struct task_struct *running_task(void)
{
	return (struct task_struct *)bpf_get_current_task();
}

/* The task whose identity is that of the whole process. Under bcc without the right headers, the task itself. */
static __always_inline struct task_struct *process_of(struct task_struct *task)
{
#if defined(FOR_BCC) && !HEADERS_MATCH
	return task;
#else
	return KERNEL_READ(task, group_leader);
#endif
}

#endif
