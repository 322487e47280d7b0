/* SPDX-License-Identifier: GPL-2.0-only */
/* account.h: how our programs keep sums in maps: maps of one value, sums that begin at zero, epochs of a window. */
#ifndef GPROF_LITE_ACCOUNT_H
#define GPROF_LITE_ACCOUNT_H

#define EPOCHS 16

#define ADD(place, n) __sync_fetch_and_add(&(place), n)

/* The value of a map that has one; of a per-CPU map, this CPU's. */
#define ONLY(map)                        \
	({                               \
		u32 zero_ = 0;           \
		map_lookup(map, &zero_); \
	})

/* The value of a key; where there is none yet, it begins as a copy of the only value of another map, which is never
 * written: zeroes too large for a program's own stack. NULL: there is no room. */
#define FIND_OR_MAKE(map, key, blank)                                      \
	({                                                                 \
		void *found_ = map_lookup(map, key), *blank_;              \
		if (!found_) {                                             \
			blank_ = ONLY(blank);                              \
			if (blank_) {                                      \
				map_update(map, key, blank_, BPF_NOEXIST); \
				found_ = map_lookup(map, key);             \
			}                                                  \
		}                                                          \
		found_;                                                    \
	})

/* In which epoch of a window it is now; the last one takes the rest. zero_ns: when epoch 0 began, CLOCK_MONOTONIC. */
static __always_inline u64 epoch_now(u64 zero_ns, u64 epoch_ns, u64 n_epochs)
{
	u64 age_ns = bpf_ktime_get_ns() - zero_ns, epoch;

	if ((s64)age_ns < 0 || !epoch_ns)
		return 0;
	epoch = age_ns / epoch_ns;
	return epoch < n_epochs ? epoch : n_epochs - 1;
}

#endif
