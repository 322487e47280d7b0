/* SPDX-License-Identifier: GPL-2.0-only */
/* oom.h: what oom.bpf.c shares with gprof_lite/probes/oom.py. */
#ifndef GPROF_LITE_OOM_H
#define GPROF_LITE_OOM_H

/* How much a record says. */
enum oom_record_kind {
	OOM_VICTIM = 1,	  /* all there is to say */
	OOM_PID = 2,	  /* a victim by its pid; who that is follows when it ends */
	OOM_IDENTITY = 3, /* who a victim was */
};

/* 0 is "not known" in each member. */
struct oom_record {
	u64 time_ns; /* CLOCK_MONOTONIC */
	u64 start_boottime_ns;
	u64 cgroup_id;	      /* in the unified hierarchy (v2) */
	u64 memory_cgroup_id; /* where its memory is limited: v1 or v2 */
	u64 total_vm_bytes;
	u64 anon_bytes;
	u64 file_bytes;
	u64 shmem_bytes;
	u32 kind;
	u32 pid; /* of the process (tgid) */
	u32 uid;
	u32 marked; /* OOM_IDENTITY: the pid in its OOM_PID record, which may be that of a thread */
	char comm[16];
};

#endif
