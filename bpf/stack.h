/* SPDX-License-Identifier: GPL-2.0-only */
/* stack.h: the one place where our programs collect stacks of user space.
 *
 * collect_stack() takes registers of user space and fills a struct stack_walk: addresses, leaf first, a 64-bit id, how
 * many frames there are and why it stopped. What a caller needs to know ends there, so that another unwinder (by
 * .eh_frame tables) can take the place of next_frame() below without any change outside of this file.
 *
 * The walk goes by frame pointers, and every address must lie in a range of the process's code table, so garbage ends
 * a stack instead of making a new one of every allocation. The table comes from user space (probes/code_ranges.py).
 * A library without frame pointers between the probed function and the program (operator new, strdup, getline) breaks
 * the chain at its most important place: there the words on the stack are searched for return addresses instead, see
 * find_caller().
 *
 * The kernel's own bpf_get_stack() is not used: at a function's first instructions it loses the caller before Linux
 * 6.11 (commit cfa7f3d2c526) and invents one after it when something was pushed before %rbp; and it knows no code
 * table.
 */
#ifndef GPROF_LITE_STACK_H
#define GPROF_LITE_STACK_H

#define STACK_DEPTH 64	       /* frames kept, from the leaf */
#define STACK_WINDOW 64	       /* words of the stack searched for a caller */
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
	STACK_COMPLETE = 1, /* the outermost frame says so: its frame pointer is 0 */
	STACK_ENTERED = 2,  /* ended in system code at the outer end: where libc calls main or a thread's function */
	STACK_OUTSIDE = 3,  /* an address in no code range */
	STACK_NO_FRAME = 4, /* the frame pointer points nowhere a frame can be */
	STACK_UNREADABLE = 5,
	STACK_FULL = 6,
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

/* A walk in progress. It lives in a map: what the verifier sees of it after each step is the same, so the ways through
 * the loops below do not multiply (on the program's own stack they do: a million instructions, refused). */
struct stack_walk {
	struct frame_registers at;
	u64 id;			  /* hash of all frames, process and tag */
	u64 last_end, before_end; /* ends and flags of the code ranges of the last frame and of the one before */
	u64 saved_bp;
	struct stack_record record;
	u64 window_at; /* where in the process the words below are from; 0: nowhere yet */
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
static __always_inline bool follows_call(u64 address)
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
static __always_inline bool is_frame_of_code(const struct code_table *code, u64 bp)
{
	u64 above = 0;

	return !bpf_probe_read_user(&above, sizeof(above), (void *)(bp + 8)) && code_end(code, above) &&
	       follows_call(above);
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
	u64 n_words = STACK_WINDOW, n_bytes = STACK_WINDOW * 8;
	bool has_frame;

	if (!walk || !code)
		return 0;
	has_frame = is_frame(walk->at.bp, walk->at.sp) && is_frame_of_code(code, walk->at.bp);
	if (has_frame && (walk->at.bp - walk->at.sp) / 8 < n_words)
		n_words = (walk->at.bp - walk->at.sp) / 8;
	walk->window_at = walk->at.sp;
	if (bpf_probe_read_user(walk->window, sizeof(walk->window), (void *)walk->at.sp)) {
		/* The stack may end within the window. */
		n_bytes = 4096 - (walk->at.sp & 4095);
		walk->window_at = 0;
		if (n_bytes > sizeof(walk->window))
			return 0;
		if (bpf_probe_read_user(walk->window, n_bytes, (void *)walk->at.sp))
			return 0;
		if (n_bytes / 8 < n_words)
			n_words = n_bytes / 8;
	}
	walk->saved_bp = 0;
	for (u32 i = 0; i < STACK_WINDOW; i++) {
		u64 word, slot, end;

		if (i >= n_words)
			break;
		word = walk->window[i];
		slot = walk->at.sp + 8 * i;
		if (word > slot && word - slot < STACK_REACH) {
			if (!walk->saved_bp && !has_frame && !(word & 7) && is_frame_of_code(code, word))
				walk->saved_bp = word;
			continue;
		}
		end = code_end(code, word);
		/* libc calls programs, and itself; that it called another library is a left-over of some earlier call.
		 */
		if (!end || ((end & CODE_SYSTEM) && !(walk->last_end & (CODE_SYSTEM | CODE_PROGRAM))))
			continue;
		if (!follows_call(word))
			continue;
		walk->at.pc = word;
		walk->at.sp = slot + 8;
		if (walk->saved_bp)
			walk->at.bp = walk->saved_bp;
		return 1;
	}
	return 0;
}

/* The two words at bp: the caller's frame pointer and where it goes on. Frames lie close together, so a window of the
 * stack is read at once: half the cost of a walk would be single reads. */
static __always_inline bool read_frame(struct stack_walk *walk, u64 bp, u64 frame[2])
{
	u64 offset = bp - walk->window_at, at;

	if (offset > sizeof(walk->window) - 16 || (offset & 7)) {
		if (bpf_probe_read_user(walk->window, sizeof(walk->window), (void *)bp)) {
			walk->window_at = 0;
			return !bpf_probe_read_user(frame, 16, (void *)bp);
		}
		walk->window_at = bp;
		offset = 0;
	}
	at = offset / 8;
	frame[0] = walk->window[at & (STACK_WINDOW - 1)];
	frame[1] = walk->window[(at + 1) & (STACK_WINDOW - 1)];
	return true;
}

/* One step outwards by the frame pointer. Returns why there is none, or STACK_RUNNING. */
static __always_inline u32 next_frame(struct stack_walk *walk)
{
	struct frame_registers *at = &walk->at;
	u64 frame[2];

	if (!at->bp)
		return STACK_COMPLETE;
	if (!is_frame(at->bp, at->sp))
		return STACK_NO_FRAME;
	if (!read_frame(walk, at->bp, frame))
		return STACK_UNREADABLE;
	at->sp = at->bp + 16;
	at->bp = frame[0];
	at->pc = frame[1];
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

/* Collects a stack. Before: `at` is set, and record.tgid, .image, .tag, which tell equal addresses apart. After: record
 * and id. Without a code table nothing is cut. */
STACK_FUNCTION int collect_stack(struct stack_walk *walk, const struct code_table *code)
{
	struct stack_record *record;
	u32 stop = STACK_FULL;

	if (!walk)
		return 0;
	record = &walk->record;
	walk->window_at = 0;
	record->n_frames = 0;
	record->check = 1;
	walk->id = mix((u64)record->tgid << 32 | (u64)record->tag << 16 | record->image, 0);
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
		stop = next_frame(walk);
		if (stop)
			break;
		if (record->n_frames >= STACK_DEPTH) {
			stop = STACK_FULL;
			break;
		}
		if (code) {
			u64 end = code_end(code, walk->at.pc);

			if (!end) {
				stop = STACK_OUTSIDE;
				break;
			}
			walk->before_end = walk->last_end;
			walk->last_end = end;
		}
		add_frame(walk);
	}
	if (record->n_frames > 1 && stop != STACK_FULL && (walk->last_end & ~walk->before_end & CODE_SYSTEM))
		stop = STACK_ENTERED;
	record->stop = stop;
	return 0;
}

#endif
