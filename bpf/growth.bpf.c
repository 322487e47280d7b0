// SPDX-License-Identifier: GPL-2.0-only
/* growth.bpf.c: the memory of all processes in a few large reads, without a file to open for each of them.
 *
 * An iterator over tasks: the kernel runs it for every thread while user space reads, and it writes one record for each
 * process. Processes of the kernel have no memory of their own and are left out.
 */
#include "compat.h"
#include "growth.h"

#ifdef FOR_BCC
#error "iterators need a kernel that describes its types (BTF); /proc says the same without"
#endif

#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */

PROGRAM_ITERATOR(task, list_processes)
{
	const struct task_struct *task = ctx->task, *leader;
	const struct mm_struct *mm;
	struct process_pages pages = {};

	if (!task || (task->flags & PF_KTHREAD))
		return 0;
	mm = task->mm;
	if (!mm)
		return 0;
	leader = task->group_leader;
	/* The first thread has ended and left its memory to the others: each of them speaks, user space hears one. */
	if (task->pid != task->tgid && leader->mm)
		return 0;
	pages.pid = task->tgid;
	pages.start_boottime_ns = start_boottime_ns(leader);
	BPF_CORE_READ_STR_INTO(&pages.comm, leader, comm);
	pages.anon_pages = counted_pages(mm, MM_ANONPAGES);
	pages.file_pages = counted_pages(mm, MM_FILEPAGES);
	pages.shmem_pages = counted_pages(mm, MM_SHMEMPAGES);
	pages.swap_pages = counted_pages(mm, MM_SWAPENTS);
	bpf_seq_write(ctx->meta->seq, &pages, sizeof(pages));
	return 0;
}
