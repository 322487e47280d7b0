// SPDX-License-Identifier: GPL-2.0-only
/* notebook.bpf.c: does what the tests of the loaders want to see; run by hand, attached for one test only. */
#include "compat.h"

struct sheet {
	u64 number;
	u64 square;
};

MAP_HASH(pages, u32, struct sheet, 4096)
MAP_PERCPU_HASH(parts, u32, u64, 128)
MAP_ARRAY(counts, u32, u64, 5)
MAP_PERCPU_ARRAY(sums, u32, u64, 2)
MAP_RING(notes, 4096)

TUNABLE(u32, n_turns, 10)
TUNABLE(u64, wide, 1ull << 40)

static __always_inline void count(u32 which)
{
	u64 *n = map_lookup(counts, &which);

	if (n)
		__sync_fetch_and_add(n, 1);
}

/* Writes n_turns entries; counts[0]: entries that did not fit, counts[4]: written so far. */
RAW_TRACEPOINT(notebook_write, write_pages)
{
	u32 which = 4;
	u64 *written = map_lookup(counts, &which);

	if (!written)
		return 0;
	for (u32 i = 0; i < 4096; i++) {
		struct sheet page = {};
		u32 first = 0, place = *written;
		u64 *sum;

		if (i >= n_turns)
			break;
		page.number = place;
		page.square = (u64)place * place;
		if (map_update(pages, &place, &page, BPF_ANY))
			count(0);
		sum = map_lookup(sums, &first);
		if (sum)
			*sum += place;
		(*written)++;
	}
	return 0;
}

/* Writes n_turns records of 24 bytes into the ring; counts[1]: those that did not fit, counts[2]: written so far. */
RAW_TRACEPOINT(notebook_tell, tell_notes)
{
	u32 which = 2;
	u64 *written = map_lookup(counts, &which);

	if (!written)
		return 0;
	for (u32 i = 0; i < 4096; i++) {
		u64 *note;

		if (i >= n_turns)
			break;
		note = ring_reserve(notes, 24);
		if (!note) {
			count(1);
			continue;
		}
		note[0] = *written;
		note[1] = wide;
		note[2] = ~0ull;
		if ((i & 3) == 3)
			ring_discard(note);
		else
			ring_submit(note);
		(*written)++;
	}
	return 0;
}

RAW_TRACEPOINT(notebook_ask, ask_turns)
{
	return n_turns;
}

/* Attached: counts[3] counts the ends of threads. */
RAW_TRACEPOINT(sched_process_exit, count_ends)
{
	count(3);
	return 0;
}
