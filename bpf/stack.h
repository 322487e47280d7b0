/* SPDX-License-Identifier: GPL-2.0-only */
/* stack.h: the one place where our programs collect stacks of user space.
 *
 * collect_stack() takes registers of user space and fills a struct stack_walk: addresses, leaf first, a 64-bit id, how
 * many frames there are and why it stopped. What a caller needs to know ends there.
 *
 * There are two ways. The frames of a process whose code user space made tables of are left by call frame information
 * (unwind.h), whole to their root. Of any other, and under bcc, the walk goes by frame pointers, and every address must
 * lie in a range of the process's code table, so garbage ends a stack instead of making a new one of every allocation.
 * The table comes from user space (probes/code_ranges.py). There a library without frame pointers between the probed
 * function and the program (operator new, strdup, getline) breaks the chain at its most important place: the words on
 * the stack are searched for return addresses instead, see find_caller().
 *
 * The kernel's own bpf_get_stack() is not used: at a function's first instructions it loses the caller before Linux
 * 6.11 (commit cfa7f3d2c526) and invents one after it when something was pushed before %rbp; and it knows no code
 * table.
 */
#ifndef GPROF_LITE_STACK_H
#define GPROF_LITE_STACK_H

#define STACK_DEPTH 128	       /* frames kept, from the leaf; power of two */
#define STACK_WINDOW 256       /* words of the stack read at once; power of two */
#define STACK_SEARCHED 64      /* words of the stack searched for a caller */
#define STACK_GUESSES 4	       /* callers found by searching, per stack */
#define STACK_REACH (16 << 20) /* a frame pointer farther away than this many bytes is none */
#define CODE_RANGES 512	       /* power of two: the search takes 9 steps */
#define CODE_STEPS(step) step(256) step(128) step(64) step(32) step(16) step(8) step(4) step(2) step(1)

/* A function of its own for the verifier, which goes through it once whoever calls it. bcc knows no such thing. */
#ifdef FOR_BCC
#define IS_BCC 1
#define STACK_FUNCTION static __always_inline
#else
#define IS_BCC 0
#define STACK_FUNCTION __attribute__((noinline))
#endif

/* Flags of a code range, in the low bits of its end: ends are whole pages, or functions, which start on 16 bytes. */
#define CODE_FRAME_POINTERS 1ull /* compiled with frame pointers */
#define CODE_SYSTEM 2ull    /* text of the allocator, libc or the dynamic linker: what it maps is its own business */
#define CODE_ALLOCATOR 4ull /* body of a probed allocator function: what it calls is part of the call we saw */
#define CODE_PROGRAM 8ull   /* the executable's own code, not a library's */
#define CODE_FLAGS 15ull

enum stack_stop {
	STACK_RUNNING = 0,
	STACK_COMPLETE = 1, /* the outermost frame says so: it has no return address, or its frame pointer is 0 */
	STACK_ENTERED = 2,  /* ended in system code at the outer end: where libc calls main or a thread's function */
	STACK_OUTSIDE = 3,  /* an address in no code range, or no mapping */
	STACK_NO_FRAME = 4, /* the frame pointer points nowhere a frame can be */
	STACK_UNREADABLE = 5,
	STACK_FULL = 6,
	/* Only of walks by tables: */
	STACK_NO_RULE = 7, /* no table of this code, or none of its rows: and neither frame pointer nor search helped */
	STACK_UNSUPPORTED = 8, /* a rule that 24 bits cannot hold */
	STACK_BAD_CFA = 9,     /* the caller's part of the stack would lie below */
	STACK_STOPS,
};

/* What the registers say of the first frame. */
enum stack_from {
	STACK_AT_RETURN = 0,   /* pc is where a call returns to */
	STACK_AT_CODE = 1,     /* pc is the instruction at which the thread is */
	STACK_AT_FUNCTION = 2, /* the same, and it is the first one of a function */
};

/* Code of a process, sorted; starts[0] is 0 and unused places are all ones. */
struct code_table {
	u64 starts[CODE_RANGES];
	u64 ends[CODE_RANGES];
};

/* Registers of user space at the first frame: pc inside it, sp where its own part of the stack begins. */
struct frame_registers {
	u64 pc, sp, bp;
};

/* A stack as it is kept, once, by its id. */
struct stack_record {
	u64 check; /* another hash: a stack with the same id and another check is another stack */
	u32 tgid;
	u32 image; /* how many execs the process had been through */
	u32 tag;   /* for the program: which function */
	u16 n_frames;
	u16 stop; /* enum stack_stop */
	u64 frames[STACK_DEPTH];
};

/* Where the list of a process's mappings is, and what its remembered rules are mixed with. See unwind.h. */
struct unwound_process {
	u64 salt;
	u32 first;
	u32 n;
};

/* A walk in progress. It lives in a map: what the verifier sees of it after each step is the same, so the ways through
 * the loops below do not multiply (on the program's own stack they do: a million instructions, refused). */
struct stack_walk {
	struct frame_registers at;
	u32 from;	 /* enum stack_from, of the first frame */
	u32 is_exact;	 /* pc is no return address */
	u32 mapping;	 /* number of the last one that was found */
	u32 guesses;	 /* callers found by searching */
	u32 has_frame;	 /* the frame pointer leads to a frame: a search ends there */
	u32 n_to_bottom; /* with so many frames the walk reached one that was put there, not called */
	struct unwound_process process;
	u64 id;			  /* hash of all frames, process and tag */
	u64 last_end, before_end; /* ends and flags of the code ranges of the last frame and of the one before */
	u64 saved_bp;
	struct stack_record record;
	u64 window_at;	  /* where in the process the words below are from, */
	u64 window_bytes; /* and how much of them */
	u64 window[STACK_WINDOW];
};

/* Index of the range that may hold an address. Branch-free, or the verifier would walk 2^9 ways through each frame. */
static __always_inline u64 code_index(const struct code_table *code, u64 address)
{
	u64 at = 0;
#define CODE_STEP(n) at += n & (u64)((s64)(code->starts[(at + n) & (CODE_RANGES - 1)] - 1 - address) >> 63);
	CODE_STEPS(CODE_STEP)
#undef CODE_STEP
	return at & (CODE_RANGES - 1);
}

/* The end of the range that holds an address, with its flags; 0: there is none. */
static __always_inline u64 code_end(const struct code_table *code, u64 address)
{
	u64 end = code->ends[code_index(code, address)];

	return address < (end & ~CODE_FLAGS) ? end : 0;
}

/* Does a call instruction end right before this address? x86: e8 rel32, or ff /2 in its lengths of 2, 3, 4, 6, 7. */
STACK_FUNCTION int follows_call(u64 address)
{
	u8 before[8] = {};

	if (bpf_probe_read_user(before, 7, (void *)(address - 7)))
		return false;
#define IS_FF_2(n) (before[n] == 0xff && (before[n + 1] & 0x38) == 0x10)
	return before[2] == 0xe8 || IS_FF_2(5) || IS_FF_2(4) || IS_FF_2(3) || IS_FF_2(1) || IS_FF_2(0);
#undef IS_FF_2
}

/* Can a frame be at bp, for a caller whose stack starts at sp? */
static __always_inline bool is_frame(u64 bp, u64 sp)
{
	return bp >= sp && bp - sp < STACK_REACH && !(bp & 7);
}

/* Is there a frame at bp: above the saved frame pointer, an address that a call returns to? */
STACK_FUNCTION int is_frame_of_code(const struct code_table *code, u64 bp)
{
	u64 above = 0;

	return code && !bpf_probe_read_user(&above, sizeof(above), (void *)(bp + 8)) && code_end(code, above) &&
	       follows_call(above);
}

/* Reads the stack from an address on, as far as it goes within the window; by whole pages where it ends. */
STACK_FUNCTION int fill_window(struct stack_walk *walk, u64 from)
{
	u64 n_bytes = sizeof(walk->window);

	if (!walk)
		return 0;
	if (bpf_probe_read_user(walk->window, sizeof(walk->window), (void *)from)) {
		n_bytes = 4096 - (from & 4095);
		if (n_bytes > sizeof(walk->window) ||
		    bpf_probe_read_user(walk->window, n_bytes & (sizeof(walk->window) * 2 - 1), (void *)from))
			n_bytes = 0;
	}
	walk->window_at = from;
	walk->window_bytes = n_bytes & ~7ull;
	return 0;
}

/* A word of the stack. Frames lie close together, so a window of it is read at once: single reads would be most of what
 * a walk costs. */
static __always_inline bool read_word(struct stack_walk *walk, u64 address, u64 *word)
{
	u64 offset = address - walk->window_at;

	if (offset >= walk->window_bytes) {
		/* A little of what lies below may be asked for next. */
		fill_window(walk, (address - 64) & ~7ull);
		offset = address - walk->window_at;
	}
	if (offset >= walk->window_bytes || (offset & 7))
		return !bpf_probe_read_user(word, sizeof(*word), (void *)address);
	*word = walk->window[offset / 8 & (STACK_WINDOW - 1)];
	return true;
}

/* Is this word of the window what a call left behind? If so, the walk goes there. A function of its own, or the
 * verifier would go through it for every word. */
STACK_FUNCTION int is_caller(struct stack_walk *walk, const struct code_table *code, u32 at)
{
	u64 word, slot, end;

	if (!walk || !code)
		return 0;
	word = walk->window[at & (STACK_WINDOW - 1)];
	slot = walk->at.sp + 8 * (u64)at;
	if (word > slot && word - slot < STACK_REACH) {
		if (!walk->saved_bp && !walk->has_frame && !(word & 7) && is_frame_of_code(code, word))
			walk->saved_bp = word;
		return 0;
	}
	end = code_end(code, word);
	/* libc calls programs, and itself; that it called another library is a left-over of some earlier call. */
	if (!end || ((end & CODE_SYSTEM) && !(walk->last_end & (CODE_SYSTEM | CODE_PROGRAM))))
		return 0;
	if (!follows_call(word))
		return 0;
	walk->at.pc = word;
	walk->at.sp = slot + 8;
	return 1;
}

/* The caller of a function that keeps no frame pointer: search its frame for what a call left behind.
 *
 * at.pc is inside such a function and at.sp is the lowest word of its frame. A word that lies in code and follows a
 * call is taken for its return address. The frame pointer belongs to some function farther out, if it is a frame at
 * all; then the search ends there. If it is none (the library uses rbp for something else), the first word in between
 * that points to a frame with a return address is the saved one.
 * Left-overs of earlier calls can be taken for callers: that is why only STACK_GUESSES are made, and none where the
 * code has frame pointers. Returns 1 when it found one.
 */
STACK_FUNCTION int find_caller(struct stack_walk *walk, const struct code_table *code)
{
	u64 n_words = STACK_SEARCHED;
	bool has_frame;

	if (!walk || !code)
		return 0;
	has_frame = is_frame(walk->at.bp, walk->at.sp) && is_frame_of_code(code, walk->at.bp);
	if (has_frame && (walk->at.bp - walk->at.sp) / 8 < n_words)
		n_words = (walk->at.bp - walk->at.sp) / 8;
	fill_window(walk, walk->at.sp);
	if (walk->window_bytes / 8 < n_words)
		n_words = walk->window_bytes / 8;
	walk->has_frame = has_frame;
	walk->saved_bp = 0;
	for (u32 i = 0; i < STACK_SEARCHED; i++) {
		if (i >= n_words)
			break;
		if (is_caller(walk, code, i)) {
			if (walk->saved_bp)
				walk->at.bp = walk->saved_bp;
			return 1;
		}
	}
	return 0;
}

/* One step outwards by the frame pointer. Returns why there is none, or STACK_RUNNING. */
static __always_inline u32 next_frame(struct stack_walk *walk)
{
	struct frame_registers *at = &walk->at;
	u64 saved = 0, address = 0;

	if (!at->bp)
		return STACK_COMPLETE;
	if (!is_frame(at->bp, at->sp))
		return STACK_NO_FRAME;
	if (!read_word(walk, at->bp, &saved) || !read_word(walk, at->bp + 8, &address))
		return STACK_UNREADABLE;
	at->sp = at->bp + 16;
	at->bp = saved;
	at->pc = address;
	return at->pc ? STACK_RUNNING : STACK_COMPLETE;
}

static __always_inline u64 mix(u64 hash, u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
	return hash ^ (hash >> 32);
}

static __always_inline void add_frame(struct stack_walk *walk)
{
	struct stack_record *record = &walk->record;
	u64 pc = walk->at.pc;

	record->frames[record->n_frames & (STACK_DEPTH - 1)] = pc;
	record->n_frames++;
	walk->id = mix(walk->id, pc);
	record->check = (record->check << 7 | record->check >> 57) + pc;
}

/* Ended where libc calls main, or a thread's function? */
static __always_inline bool is_entered(const struct stack_walk *walk)
{
	return walk->record.n_frames > 1 && (walk->last_end & ~walk->before_end & CODE_SYSTEM);
}

#ifndef FOR_BCC
#include "unwind.h"

/* By tables. Returns whether there are any for this process. */
static __always_inline bool walk_by_tables(struct stack_walk *walk, const struct code_table *code)
{
	u32 tgid = walk->record.tgid, stop, n;
	const struct unwound_process *process = map_lookup(unwound, &tgid);

	if (!process)
		return false;
	walk->process = *process;
	walk->mapping = process->first;
	walk->guesses = 0;
	walk->n_to_bottom = 0;
	walk->is_exact = walk->from != STACK_AT_RETURN;
	fill_window(walk, walk->at.sp);
	stop = unwind(walk, code);
	n = walk->record.n_frames;
	if (code && stop != STACK_COMPLETE && stop != STACK_FULL && n > 1) {
		walk->last_end = code_end(code, walk->record.frames[(n - 1) & (STACK_DEPTH - 1)]);
		walk->before_end = code_end(code, walk->record.frames[(n - 2) & (STACK_DEPTH - 1)]);
		if (is_entered(walk))
			stop = STACK_ENTERED;
	}
	walk->record.stop = stop;
	return true;
}

/* A process became another program: its mappings are others. */
static __always_inline void forget_mappings(u32 tgid)
{
	map_delete(unwound, &tgid);
}
#else
#define walk_by_tables(walk, code) false
#define forget_mappings(tgid) (void)(tgid)
#endif

/* One frame more by the frame pointer. Returns why there is none, or STACK_RUNNING. A function of its own, or the
 * verifier would go through it as often as the loop does. */
STACK_FUNCTION int add_caller(struct stack_walk *walk, const struct code_table *code)
{
	u32 stop;

	if (!walk)
		return STACK_NO_FRAME;
	stop = next_frame(walk);
	if (stop)
		return stop;
	if (walk->record.n_frames >= STACK_DEPTH)
		return STACK_FULL;
	if (code) {
		u64 end = code_end(code, walk->at.pc);

		if (!end)
			return STACK_OUTSIDE;
		walk->before_end = walk->last_end;
		walk->last_end = end;
	}
	add_frame(walk);
	return STACK_RUNNING;
}

/* By frame pointers, and by a search where there are none. */
static __always_inline void walk_by_frames(struct stack_walk *walk, const struct code_table *code)
{
	u32 stop = STACK_FULL;

	add_frame(walk);
	walk->last_end = code ? code_end(code, walk->at.pc) : 0;
	if (code) {
		/* With bcc all this would be part of each program: too much for the verifier. */
		for (u32 guess = 0; guess < STACK_GUESSES && !IS_BCC; guess++) {
			if (!walk->last_end || (walk->last_end & CODE_FRAME_POINTERS) || !find_caller(walk, code))
				break;
			add_frame(walk);
			walk->before_end = walk->last_end;
			walk->last_end = code_end(code, walk->at.pc);
			/* From the program out to libc: that is where main or a thread was called. */
			if ((walk->last_end & CODE_SYSTEM) && (walk->before_end & CODE_PROGRAM))
				break;
		}
	}
	for (u32 turn = 0; turn < STACK_DEPTH; turn++) {
		stop = add_caller(walk, code);
		if (stop)
			break;
	}
	if (stop != STACK_FULL && is_entered(walk))
		stop = STACK_ENTERED;
	walk->record.stop = stop;
}

/* Collects a stack. Before: `at` is set, `from` (zero: STACK_AT_RETURN), and record.tgid, .image, .tag, which tell
 * equal addresses apart. After: record and id. Without a code table nothing is cut. */
STACK_FUNCTION int collect_stack(struct stack_walk *walk, const struct code_table *code)
{
	struct stack_record *record;

	if (!walk)
		return 0;
	record = &walk->record;
	walk->window_bytes = 0;
	record->n_frames = 0;
	record->check = 1;
	walk->id = mix((u64)record->tgid << 32 | (u64)record->tag << 16 | record->image, 0);
	if (!walk_by_tables(walk, code))
		walk_by_frames(walk, code);
	return 0;
}

#endif
