/* SPDX-License-Identifier: GPL-2.0-only */
/* growth.h: what growth.bpf.c shares with gprof_lite/probes/growth.py. */
#ifndef GPROF_LITE_GROWTH_H
#define GPROF_LITE_GROWTH_H

/* One process, all its threads together. */
struct process_pages {
	u64 start_boottime_ns;
	u64 anon_pages;
	u64 file_pages;
	u64 shmem_pages;
	u64 swap_pages;
	u32 pid;
	u32 unused;
	char comm[16];
};

#endif
