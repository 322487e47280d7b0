// SPDX-License-Identifier: GPL-2.0-only
/* refused.bpf.c: reads through a pointer that may be NULL, which no verifier lets pass. */
#include "compat.h"

MAP_HASH(things, u32, u64, 16)

RAW_TRACEPOINT(sched_process_exit, read_nothing)
{
	u32 key = 1;
	u64 *thing = map_lookup(things, &key);

	return *thing;
}
