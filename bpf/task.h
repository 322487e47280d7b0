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

/* Where the heap of the current process ends; brk() moves it. */
static __always_inline u64 current_heap_end(void)
{
	struct task_struct *task = running_task();

	return KERNEL_READ(task, mm, brk);
}

/* The process id of a task that was just made, 0 when it is only a thread. task: argument of a tracepoint. */
static __always_inline u32 new_process(u64 task)
{
	struct task_struct *made = (struct task_struct *)task;
	u32 pid = KERNEL_READ(made, pid), tgid = KERNEL_READ(made, tgid);

	return pid == tgid ? tgid : 0;
}

#endif
