/* SPDX-License-Identifier: GPL-2.0-only */
/* kernel_types.h: the members of kernel structures that our programs read, and no others.
 *
 * Only names and types count: libbpf puts the running kernel's offsets in their place (CO-RE). A name behind three
 * underscores is another kernel's form of the same structure (core_fixes.bpf.h). With bcc the real headers are used.
 */
#ifndef GPROF_LITE_KERNEL_TYPES_H
#define GPROF_LITE_KERNEL_TYPES_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	u64 id; /* the inode number, which is the id of a cgroup */
};

struct cgroup {
	struct kernfs_node *kn;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

/* [i]: by the number of the controller, in an order that depends on the kernel's configuration. */
struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp; /* in the unified hierarchy */
};

typedef struct {
	long long counter;
} atomic64_t;

typedef atomic64_t atomic_long_t;

struct percpu_counter {
	s64 count;
	s32 *counters; /* one per CPU */
};

/* Linux 6.2 and later; older ones in core_fixes.bpf.h. */
struct mm_struct {
	struct percpu_counter rss_stat[4];
	unsigned long total_vm;
	unsigned long brk;
};

struct cred {
	struct {
		unsigned int val;
	} uid;
};

struct nsproxy;

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
