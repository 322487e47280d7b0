/* SPDX-License-Identifier: GPL-2.0-only */
/* compat.h: the one place that knows which of two ways a program is built.
 *
 * Ahead of time: clang compiles it against the few kernel types of kernel_types.h, and libbpf fits it to the running
 * kernel's own types (CO-RE). FOR_BCC: bcc compiles it on the host, against the kernel's real headers.
 *
 * A program uses nothing but these names, and so is the same source for both:
 *   maps       MAP_HASH MAP_ARRAY MAP_PERCPU_ARRAY MAP_PERCPU_HASH MAP_RING, at file scope; ahead of time only:
 *              MAP_SHARED_ARRAY(name, type, n), which user space can map into its memory, MAP_READY_HASH, all of whose
 *              entries are allocated from the start, and MAP_STACKS(name, n), of the kernel's own stacks
 *   on maps    map_lookup map_update map_delete ring_reserve ring_submit ring_submit_now ring_discard
 *   settings   TUNABLE(type, name, default): user space can give another value before the program is loaded
 *   programs   RAW_TRACEPOINT TRACEPOINT PROGRAM_KPROBE PROGRAM_PERF_EVENT PROGRAM_ITERATOR
 *   kernel     KERNEL_READ(pointer, member, member...): follows pointers through the kernel's types
 *              MEMBER_AT(type, member): where a member is, as default of a TUNABLE; 0 where user space has to say it
 *
 * There is no LRU map: what such a map gives up first is what was not touched for the longest time, which is the leaks.
 *
 * User space (gprof_lite/probes/bcc_object.py) finds MAP_, TUNABLE and program lines by their first word, so each of
 * them begins a line, and the name of a map is its first argument.
 */
#ifndef GPROF_LITE_COMPAT_H
#define GPROF_LITE_COMPAT_H

#ifdef FOR_BCC

#include <linux/errno.h>
#include <linux/mm_types.h>
#include <linux/ptrace.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

/* bcc's own map methods are written into the text by its rewriter, which sees neither included files nor macros. So a
 * map is declared the way bcc wants it, and used by a number of ours, MAP_NUMBER_name, which user space defines and
 * exchanges for the map's descriptor when it loads the program. */
#define MAP_FD(name) bpf_pseudo_fd(1, MAP_NUMBER_##name)
#define MAP_HASH(name, key_type, value_type, n) \
	BPF_F_TABLE("hash", key_type, value_type, name, MAP_ENTRIES_##name(n), BPF_F_NO_PREALLOC);
#define MAP_PERCPU_HASH(name, key_type, value_type, n) \
	BPF_F_TABLE("percpu_hash", key_type, value_type, name, MAP_ENTRIES_##name(n), BPF_F_NO_PREALLOC);
#define MAP_ARRAY(name, key_type, value_type, n) \
	BPF_F_TABLE("array", key_type, value_type, name, MAP_ENTRIES_##name(n), 0);
#define MAP_PERCPU_ARRAY(name, key_type, value_type, n) \
	BPF_F_TABLE("percpu_array", key_type, value_type, name, MAP_ENTRIES_##name(n), 0);
#define MAP_RING(name, n_bytes) BPF_RINGBUF_OUTPUT(name, MAP_ENTRIES_##name(n_bytes) / PAGE_SIZE);

#define map_lookup(map, key) bpf_map_lookup_elem_(MAP_FD(map), (void *)(key))
#define map_update(map, key, value, flags) bpf_map_update_elem_(MAP_FD(map), (void *)(key), (void *)(value), flags)
#define map_delete(map, key) bpf_map_delete_elem_(MAP_FD(map), (void *)(key))
#define ring_reserve(map, n_bytes) bpf_ringbuf_reserve((void *)MAP_FD(map), n_bytes, 0)
#define ring_submit(record) bpf_ringbuf_submit(record, 0)
#define ring_submit_now(record) bpf_ringbuf_submit(record, BPF_RB_FORCE_WAKEUP)
#define ring_discard(record) bpf_ringbuf_discard(record, 0)

/* The value is in TUNABLE_name, as user space defines it: bcc has no writable constants. */
#define TUNABLE(type, name, value) static const type name = TUNABLE_##name(value);

#define MEMBER_AT(type, member) __builtin_offsetof(type, member)

#define PROGRAM_KPROBE(section, name) int name(struct pt_regs *ctx)
#define PROGRAM_PERF_EVENT(name) int name(struct bpf_perf_event_data *ctx)
#define RAW_TRACEPOINT(point, name) int name(struct bpf_raw_tracepoint_args *ctx)
#define TRACEPOINT(category, point, name) int name(void *ctx)

#define KERNEL_READ_1_(pointer, a)                                                             \
	({                                                                                     \
		typeof((pointer)->a) value_;                                                   \
		bpf_probe_read_kernel((void *)&value_, sizeof(value_), (void *)&(pointer)->a); \
		value_;                                                                        \
	})
#define KERNEL_READ_2_(pointer, a, b)                                    \
	({                                                               \
		typeof((pointer)->a) to_b_ = KERNEL_READ_1_(pointer, a); \
		KERNEL_READ_1_(to_b_, b);                                \
	})
#define KERNEL_READ_3_(pointer, a, b, c)                                 \
	({                                                               \
		typeof((pointer)->a) to_c_ = KERNEL_READ_1_(pointer, a); \
		KERNEL_READ_2_(to_c_, b, c);                             \
	})
#define KERNEL_READ_4_(pointer, a, b, c, d)                              \
	({                                                               \
		typeof((pointer)->a) to_d_ = KERNEL_READ_1_(pointer, a); \
		KERNEL_READ_3_(to_d_, b, c, d);                          \
	})
#define KERNEL_READ_N_(_1, _2, _3, _4, NAME, ...) NAME
#define KERNEL_READ(pointer, ...)                                                                   \
	KERNEL_READ_N_(__VA_ARGS__, KERNEL_READ_4_, KERNEL_READ_3_, KERNEL_READ_2_, KERNEL_READ_1_) \
	(pointer, __VA_ARGS__)

#else

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <linux/errno.h>
#include <linux/ptrace.h>
#include <stdbool.h>

typedef __u64 u64;
typedef __s64 s64;
typedef __u32 u32;
typedef __s32 s32;
typedef __u16 u16;
typedef __s16 s16;
typedef __u8 u8;
typedef __s8 s8;

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#include "kernel_types.h"

#define MAP_OF_(map_type, name, key_type, value_type, n, flags) \
	struct {                                                \
		__uint(type, map_type);                         \
		__uint(max_entries, n);                         \
		__uint(map_flags, flags);                       \
		__type(key, key_type);                          \
		__type(value, value_type);                      \
	} name SEC(".maps");
#define MAP_HASH(name, key_type, value_type, n) \
	MAP_OF_(BPF_MAP_TYPE_HASH, name, key_type, value_type, n, BPF_F_NO_PREALLOC)
#define MAP_PERCPU_HASH(name, key_type, value_type, n) \
	MAP_OF_(BPF_MAP_TYPE_PERCPU_HASH, name, key_type, value_type, n, BPF_F_NO_PREALLOC)
#define MAP_ARRAY(name, key_type, value_type, n) MAP_OF_(BPF_MAP_TYPE_ARRAY, name, key_type, value_type, n, 0)
#define MAP_READY_HASH(name, key_type, value_type, n) MAP_OF_(BPF_MAP_TYPE_HASH, name, key_type, value_type, n, 0)
#define MAP_STACKS(name, n)                             \
	struct {                                        \
		__uint(type, BPF_MAP_TYPE_STACK_TRACE); \
		__uint(max_entries, n);                 \
		__uint(key_size, sizeof(u32));          \
		__uint(value_size, 127 * sizeof(u64));  \
	} name SEC(".maps");
#define MAP_SHARED_ARRAY(name, value_type, n) MAP_OF_(BPF_MAP_TYPE_ARRAY, name, u32, value_type, n, BPF_F_MMAPABLE)
#define MAP_PERCPU_ARRAY(name, key_type, value_type, n) \
	MAP_OF_(BPF_MAP_TYPE_PERCPU_ARRAY, name, key_type, value_type, n, 0)
#define MAP_RING(name, n_bytes)                     \
	struct {                                    \
		__uint(type, BPF_MAP_TYPE_RINGBUF); \
		__uint(max_entries, n_bytes);       \
	} name SEC(".maps");

#define map_lookup(map, key) bpf_map_lookup_elem(&(map), key)
#define map_update(map, key, value, flags) bpf_map_update_elem(&(map), key, value, flags)
#define map_delete(map, key) bpf_map_delete_elem(&(map), key)
#define ring_reserve(map, n_bytes) bpf_ringbuf_reserve(&(map), n_bytes, 0)
#define ring_submit(record) bpf_ringbuf_submit(record, 0)
#define ring_submit_now(record) bpf_ringbuf_submit(record, BPF_RB_FORCE_WAKEUP)
#define ring_discard(record) bpf_ringbuf_discard(record, 0)

#define TUNABLE(type, name, value) const volatile type name = value;

#define MEMBER_AT(type, member) 0

#define PROGRAM_KPROBE(section, name) SEC(section) int name(struct pt_regs *ctx)
#define PROGRAM_PERF_EVENT(name) SEC("perf_event") int name(struct bpf_perf_event_data *ctx)
#define PROGRAM_ITERATOR(kind, name) SEC("iter/" #kind) int name(struct bpf_iter__##kind *ctx)
#define RAW_TRACEPOINT(point, name) SEC("raw_tp/" #point) int name(struct bpf_raw_tracepoint_args *ctx)
#define TRACEPOINT(category, point, name) SEC("tracepoint/" #category "/" #point) int name(void *ctx)

#define KERNEL_READ(pointer, ...) BPF_CORE_READ(pointer, __VA_ARGS__)

/* Programs that call helpers of the tracing kind must say that they are under the GPL. */
char LICENSE[] SEC("license") = "GPL";

#endif

/* The n-th argument of the tracepoint's TP_PROTO, from 0. */
#define RAW_ARGUMENT(ctx, n) ((ctx)->args[n])

#include "core_fixes.bpf.h"
#include "task.h"

#endif
