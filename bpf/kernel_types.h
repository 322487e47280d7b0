/* SPDX-License-Identifier: GPL-2.0-only */
/* kernel_types.h: the members of kernel structures that our programs read, and no others.
 *
 * Only names and types count: libbpf puts the running kernel's offsets in their place (CO-RE). A name behind three
 * underscores is another kernel's form of the same structure (core_fixes.bpf.h). With bcc the real headers are used.
 */
#ifndef GPROF_LITE_KERNEL_TYPES_H
#define GPROF_LITE_KERNEL_TYPES_H

/* Has no name that could be looked for; its only member is at its beginning. */
typedef struct {
	unsigned int val;
} kuid_t;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	u64 id; /* the id of a cgroup: its directory's inode number in the low half, on 64-bit machines all of it */
};

struct cgroup {
	struct kernfs_node *kn;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

/* Numbered in an order that depends on the kernel's configuration; the value here is replaced. */
enum cgroup_subsys_id {
	memory_cgrp_id = 4,
};

struct css_set {
	struct cgroup_subsys_state *subsys[1]; /* one per controller */
	struct cgroup *dfl_cgrp;	       /* in the unified hierarchy */
};

struct percpu_counter {
	s64 count;
	s32 *counters; /* one per CPU */
};

/* Of rss_stat: core_fixes.bpf.h. */
enum memory_counter {
	MM_FILEPAGES,
	MM_ANONPAGES,
	MM_SWAPENTS,
	MM_SHMEMPAGES,
};

struct mm_struct {
	struct percpu_counter rss_stat[4];
	unsigned long total_vm;
};

struct cred {
	kuid_t uid;
};

struct task_struct {
	int pid;
	int tgid;
	unsigned int flags;
	char comm[16];
	u64 start_boottime;
	struct task_struct *group_leader;
	struct task_struct *real_parent;
	struct mm_struct *mm;
	const struct cred *cred;
	struct css_set *cgroups;
};

/* Written by the kernel into the trace buffer; only its members' presence is asked for. */
struct trace_event_raw_mark_victim {
	unsigned int uid;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
	u64 session_id;
	u64 seq_num;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

#endif
