/* SPDX-License-Identifier: GPL-2.0-only */
/* unwind.h: leaves frames by the call frame information of the files that they run, without frame pointers.
 *
 * User space (gprof_lite/probes/unwind_maps.py) makes a table of each file's .eh_frame: which rule holds at each
 * address (gprof_lite/unwind/rule.py and table.py explain both). Here they are applied: unwind_frame() adds the frame
 * where a walk stands, and goes to its caller. How a frame is left, in this order: by the rule of its table; by its
 * frame pointer, where no rule is known and the code keeps one (code made at run time, assembler); by a search of its
 * stack for a return address (find_caller() in stack.h), where it keeps none.
 *
 * What makes it cheap: the rule of an address is remembered per CPU (4,096 of them), the stack is read 2 KiB at a time,
 * and searches have no branches. What makes it loadable: the walk is in map memory, and functions are global, so the
 * verifier goes through a frame once, whoever calls it in whatever loop.
 *
 * Shared with user space: struct mapping_pool, struct unwound_process (stack.h), numbers of rules. The maps are made
 * once by user space, and handed to every object that includes this.
 */
#ifndef GPROF_LITE_UNWIND_H
#define GPROF_LITE_UNWIND_H

#define SHARD_WORDS (1 << 18) /* 1 MiB of tables */
#define BLOCK_BITS 8	      /* the index of a table has a word for each 256 bytes of code */
#define MAPPINGS 8192	      /* of all processes; power of two */
#define MAX_MAPPINGS 512      /* of one process: the search takes 9 steps */
#define CACHED_RULES 4096     /* power of two */
#define CACHED_BITS 12
#define LAZY_WORDS 384	/* of the stack looked through for the caller of the dynamic linker */
#define RETURN_PROBES 8 /* functions with return probes that one stack may be within, innermost first */

#define RULE_BITS 24
#define RULE_MASK ((1u << RULE_BITS) - 1)
#define NO_MAPPING (1u << RULE_BITS) /* beyond all rules: the address is in no mapping */

/* gprof_lite/unwind/rule.py */
enum rule_kind {
	RULE_RSP = 0,
	RULE_RBP = 1,
	RULE_DEREF_RBP = 2,
	RULE_PLT = 3,
	RULE_SPECIAL = 4,
	RULE_END = 5,
	RULE_NONE = 6,
	RULE_SIGNAL = 7,
};
#define WHY_OTHER_STACK_FRAMED 7
#define RULE_AT_ENTRY (RULE_RSP | 1 << 3) /* nothing but the return address is on the stack yet */

/* Where in struct rt_sigframe, from its ucontext on, registers are kept. Source: struct ucontext and sigcontext_64 of
 * the kernel's arch/x86/include/uapi/asm. */
#define SIGNAL_RBP 120
#define SIGNAL_RSP 160
#define SIGNAL_RIP 168

#define NO_SHARD 0xffffffffu /* a mapping without a table */

/* One range of code of one process, and the part of a table that covers it. */
struct code_mapping {
	u64 end;
	u64 base;     /* where the part's first block of 256 bytes is in the process */
	u32 shard;    /* or NO_SHARD */
	u32 index_at; /* in words of the shard */
	u32 rows_at;
	u32 flags;
};

#define MAPPING_ANONYMOUS 1 /* code made at run time */

/* All processes' lists, each sorted and in one piece. Starts apart: a search reads nothing else. */
struct mapping_pool {
	u64 starts[MAPPINGS];
	struct code_mapping mappings[MAPPINGS];
};

struct table_shard {
	u32 words[SHARD_WORDS];
};

/* Each: 40 bits of the address's hash, 24 of its rule. One word, so no entry can be half another's. */
struct rule_cache {
	u64 rules[CACHED_RULES];
};

MAP_READY_HASH(unwound, u32, struct unwound_process, 256)
MAP_SHARED_ARRAY(mapping_pool, struct mapping_pool, 1)
MAP_SHARED_ARRAY(table_shards, struct table_shard, 1)
MAP_PERCPU_ARRAY(rule_cache, u32, struct rule_cache, 1)

/* Where the kernel keeps the return addresses that its return probes took from the stack, in bytes; 0: not known. See
 * probes/return_addresses.py. */
TUNABLE(u32, task_utask_at, 0)
TUNABLE(u32, utask_instances_at, 0)
TUNABLE(u32, instance_stack_at, 0)
TUNABLE(u32, instance_address_at, 0)
TUNABLE(u32, instance_next_at, 0)

/* Number of the mapping that may hold an address, among those of the walk's process. */
static __always_inline u32 mapping_at(const struct stack_walk *walk, const struct mapping_pool *pool, u64 pc)
{
	u64 first = walk->process.first, n = walk->process.n, at = 0;

#define MAPPING_STEP(step)                               \
	at += step & (u64)((s64)(at + step - n) >> 63) & \
	      (u64)((s64)(pool->starts[(first + at + step) & (MAPPINGS - 1)] - 1 - pc) >> 63);
	if (n > 32) {
		MAPPING_STEP(256) MAPPING_STEP(128) MAPPING_STEP(64) MAPPING_STEP(32)
	}
	MAPPING_STEP(16)
	MAPPING_STEP(8)
	MAPPING_STEP(4)
	MAPPING_STEP(2)
	MAPPING_STEP(1)
#undef MAPPING_STEP
	return (first + at) & (MAPPINGS - 1);
}

/* Is it in any mapping of code? Leaves its number in the walk. */
static __always_inline bool in_mapping(struct stack_walk *walk, const struct mapping_pool *pool, u64 pc)
{
	u32 at = walk->mapping & (MAPPINGS - 1);

	if (pc >= pool->starts[at] && pc < pool->mappings[at].end)
		return true;
	at = mapping_at(walk, pool, pc);
	walk->mapping = at;
	return pc >= pool->starts[at] && pc < pool->mappings[at].end;
}

/* The rule at an address, by the tables; NO_MAPPING. */
STACK_FUNCTION int find_rule(struct stack_walk *walk, u64 pc)
{
	const struct code_mapping *mapping;
	const struct mapping_pool *pool;
	const struct table_shard *table;
	u64 offset, n, rows_at, at = 0;
	u32 block, before, shard, zero = 0;

	pool = map_lookup(mapping_pool, &zero);
	if (!walk || !pool || !in_mapping(walk, pool, pc))
		return NO_MAPPING;
	mapping = &pool->mappings[walk->mapping & (MAPPINGS - 1)];
	shard = mapping->shard;
	table = map_lookup(table_shards, &shard);
	if (!table)
		return RULE_NONE;
	offset = pc - mapping->base;
	block = mapping->index_at + (u32)(offset >> BLOCK_BITS);
	before = table->words[block & (SHARD_WORDS - 1)];
	n = table->words[(block + 1) & (SHARD_WORDS - 1)] - before;
	rows_at = mapping->rows_at + before;
	offset &= (1 << BLOCK_BITS) - 1;
	/* Among the block's rows, how many do not lie behind the address? */
#define ROW_STEP(step)                                                                                               \
	at += step & (u64)((s64)(at + step - n - 1) >> 63) &                                                         \
	      (u64)((s64)((u64)(table->words[(rows_at + at + step - 1) & (SHARD_WORDS - 1)] >> RULE_BITS) - offset - \
			  1) >>                                                                                      \
		    63);
	if (n >= 16) {
		ROW_STEP(128) ROW_STEP(64) ROW_STEP(32) ROW_STEP(16)
	}
	ROW_STEP(8)
	ROW_STEP(4)
	ROW_STEP(2)
	ROW_STEP(1)
#undef ROW_STEP
	return table->words[(rows_at + at - 1) & (SHARD_WORDS - 1)] & RULE_MASK;
}

/* The rule at an address: remembered, or found. */
static __always_inline u32 rule_at(struct stack_walk *walk, u64 pc)
{
	u64 hash = (pc ^ walk->process.salt) * 0x9e3779b97f4a7c15ull;
	u64 tag = hash << CACHED_BITS & ~(u64)RULE_MASK, known;
	struct rule_cache *cache;
	u32 zero = 0, rule;
	u64 *place;

	cache = map_lookup(rule_cache, &zero);
	if (!cache)
		return find_rule(walk, pc);
	place = &cache->rules[hash >> (64 - CACHED_BITS)];
	known = *place;
	if ((known & ~(u64)RULE_MASK) == tag && known)
		return known & RULE_MASK;
	rule = find_rule(walk, pc);
	if (rule != NO_MAPPING)
		*place = tag | rule;
	return rule;
}

/* While a function with a return probe runs, the kernel has put an address of its own where the return address was.
 * The true one, for the place on the stack; 0: there is no probe. */
static __always_inline u64 probed_return_address(u64 slot)
{
	u64 utask = 0, instance = 0, stack = 0, address = 0;

	if (!task_utask_at || !instance_next_at)
		return 0;
	if (bpf_probe_read_kernel(&utask, sizeof(utask), (void *)(bpf_get_current_task() + task_utask_at)) || !utask)
		return 0;
	if (bpf_probe_read_kernel(&instance, sizeof(instance), (void *)(utask + utask_instances_at)))
		return 0;
	for (u32 i = 0; i < RETURN_PROBES && instance; i++) {
		if (bpf_probe_read_kernel(&stack, sizeof(stack), (void *)(instance + instance_stack_at)))
			return 0;
		if (stack == slot) {
			bpf_probe_read_kernel(&address, sizeof(address), (void *)(instance + instance_address_at));
			return address;
		}
		if (bpf_probe_read_kernel(&instance, sizeof(instance), (void *)(instance + instance_next_at)))
			return 0;
	}
	return 0;
}

/* To the caller by the frame pointer: only to code, and only upwards. */
static __always_inline u32 leave_by_frame_pointer(struct stack_walk *walk, const struct mapping_pool *pool)
{
	u64 bp = walk->at.bp, saved = 0, address = 0;

	if (!is_frame(bp, walk->at.sp))
		return STACK_NO_FRAME;
	if (!read_word(walk, bp, &saved) || !read_word(walk, bp + 8, &address))
		return STACK_UNREADABLE;
	if (!address)
		return STACK_COMPLETE;
	if (!in_mapping(walk, pool, address) && !probed_return_address(bp + 8))
		return STACK_NO_FRAME;
	walk->at.pc = address;
	walk->at.sp = bp + 16;
	walk->at.bp = saved;
	return STACK_RUNNING;
}

/* To the caller by a search of the stack: of code that keeps no frame pointer. */
static __always_inline bool leave_by_search(struct stack_walk *walk, const struct code_table *code, u64 pc)
{
	if (!code || walk->guesses >= STACK_GUESSES)
		return false;
	walk->last_end = code_end(code, pc);
	if (!walk->last_end || (walk->last_end & CODE_FRAME_POINTERS) || !find_caller(walk, code))
		return false;
	walk->guesses++;
	return true;
}

/* Does a call that ends here lead to the slot of a library's function with this number? e8 rel32 to ff 25 rel32, 68
 * number (System V AMD64 ABI, figure 5.2). */
STACK_FUNCTION int is_lazy_call(u64 address, u64 number)
{
	u8 call[5] = {}, slot[5] = {};
	u64 target;

	if (bpf_probe_read_user(call, sizeof(call), (void *)(address - 5)) || call[0] != 0xe8)
		return 0;
	target = address + (u64)(s64)(s32)(call[1] | call[2] << 8 | call[3] << 16 | (u32)call[4] << 24);
	if (bpf_probe_read_user(slot, sizeof(slot), (void *)(target + 6)))
		return 0;
	return slot[0] == 0x68 && number == (slot[1] | slot[2] << 8 | slot[3] << 16 | (u32)slot[4] << 24);
}

/* Does the word at sp hold the number of a slot, and the next one where its call returns to? If so, the walk goes
 * there. A function of its own, or the verifier would go through it for every word. */
STACK_FUNCTION int is_lazy_binding(struct stack_walk *walk, u64 sp)
{
	u64 number = 0, address = 0;

	if (!walk || !read_word(walk, sp, &number) || number >> 16)
		return 0;
	if (!read_word(walk, sp + 8, &address) || address >> 47 || address < 4096 || !is_lazy_call(address, number))
		return 0;
	walk->at.pc = address;
	walk->at.sp = sp + 16;
	return 1;
}

/* The dynamic linker's way to a function that is called for the first time (_dl_runtime_resolve) keeps its place on the
 * stack in rbx, and has up to 2.7 KiB of vector registers below it. Right below the return address is the number of the
 * function's slot in the PLT, by which it is found. */
static __always_inline bool leave_lazy_binding(struct stack_walk *walk)
{
	u64 sp = walk->at.sp;

	for (u32 i = 0; i < LAZY_WORDS; i++)
		if (is_lazy_binding(walk, sp + 8 * (u64)i))
			return true;
	return false;
}

/* To the caller where no rule is known. */
static __always_inline u32 leave_without_rule(struct stack_walk *walk, const struct mapping_pool *pool,
					      const struct code_table *code, u64 pc)
{
	bool made = in_mapping(walk, pool, pc) &&
		    (pool->mappings[walk->mapping & (MAPPINGS - 1)].flags & MAPPING_ANONYMOUS);
	u32 stop;

	if (!made && leave_by_search(walk, code, pc))
		return STACK_RUNNING;
	if (made && !walk->at.bp)
		return STACK_COMPLETE;
	stop = leave_by_frame_pointer(walk, pool);
	return stop == STACK_NO_FRAME && !made ? STACK_NO_RULE : stop;
}

/* To where a signal interrupted the program. */
static __always_inline u32 leave_signal(struct stack_walk *walk)
{
	u64 sp = walk->at.sp;

	if (!read_word(walk, sp + SIGNAL_RBP, &walk->at.bp) || !read_word(walk, sp + SIGNAL_RIP, &walk->at.pc) ||
	    !read_word(walk, sp + SIGNAL_RSP, &walk->at.sp))
		return STACK_UNREADABLE;
	walk->is_exact = 1;
	return STACK_RUNNING;
}

/* To the caller whose part of the stack begins at cfa. saved: where from there rbp is, 0: in bp. */
static __always_inline u32 leave_to(struct stack_walk *walk, u64 cfa, s64 saved, u64 bp)
{
	u64 address = 0;

	if (!read_word(walk, cfa - 8, &address) || (saved && !read_word(walk, cfa + saved, &bp)))
		return STACK_UNREADABLE;
	if (!address)
		return walk->guesses ? STACK_NO_FRAME : STACK_COMPLETE;
	walk->at.pc = address;
	walk->at.sp = cfa;
	walk->at.bp = bp;
	return STACK_RUNNING;
}

/* To the caller by a rule of the usual kinds. */
static __always_inline u32 leave_by_base(struct stack_walk *walk, u32 rule)
{
	u64 cfa = ((rule & 7) == RULE_RBP ? walk->at.bp : walk->at.sp) + 8 * (u64)(rule >> 3 & 0x1fff);

	if (cfa <= walk->at.sp)
		return STACK_BAD_CFA;
	return leave_to(walk, cfa, (s64)(s8)(rule >> 16) * 8, walk->at.bp);
}

/* To the caller in any other way. A function of its own: what is seldom needed shall not lie between what always is. */
STACK_FUNCTION int leave_otherwise(struct stack_walk *walk, const struct code_table *code, u32 rule, u64 pc)
{
	const struct mapping_pool *pool;
	u64 cfa, bp, offset = rule >> 3 & 0x1fff;
	u32 zero = 0, kind = rule & 7;

	pool = map_lookup(mapping_pool, &zero);
	if (!walk || !pool)
		return STACK_UNSUPPORTED;
	bp = walk->at.bp;
	if (rule == NO_MAPPING || kind == RULE_NONE) {
		if (walk->record.n_frames == 1 && walk->from == STACK_AT_FUNCTION)
			return leave_by_base(walk, RULE_AT_ENTRY);
		return leave_without_rule(walk, pool, code, pc);
	}
	if (kind == RULE_END)
		return STACK_COMPLETE;
	if (kind == RULE_PLT)
		return leave_to(walk, walk->at.sp + 8 + ((pc & 15) >= offset ? 8 : 0), 0, bp);
	if (kind == RULE_SIGNAL)
		return leave_signal(walk);
	if (kind == RULE_DEREF_RBP) {
		/* A signed number of 13 bits, in words. */
		if (!read_word(walk, bp + (u64)((s64)(offset << 51) >> 48), &cfa) || !read_word(walk, bp, &bp))
			return STACK_UNREADABLE;
		return cfa <= walk->at.sp ? STACK_BAD_CFA : leave_to(walk, cfa, 0, bp);
	}
	/* To another stack, which may lie anywhere. */
	if (kind == RULE_SPECIAL && offset == WHY_OTHER_STACK_FRAMED && bp)
		return leave_to(walk, bp + 16, -16, bp);
	return leave_lazy_binding(walk) ? STACK_RUNNING : STACK_UNSUPPORTED;
}

/* A return address that is in no mapping: the rule of the true one, if there is another. */
STACK_FUNCTION int rule_of_probed(struct stack_walk *walk)
{
	u64 address;

	if (!walk)
		return NO_MAPPING;
	address = probed_return_address(walk->at.sp - 8);
	if (!address)
		return NO_MAPPING;
	walk->at.pc = address;
	return find_rule(walk, address - 1);
}

/* makecontext() lets a function return to one that nobody called: to its first instruction, and not behind a call. What
 * lies beyond is no return address. */
static __always_inline bool is_bottom(const struct stack_walk *walk)
{
	return !walk->is_exact && !(walk->at.pc & 15) && walk->record.n_frames &&
	       walk->n_to_bottom != walk->record.n_frames && !follows_call(walk->at.pc);
}

/* Adds the frame that the walk stands in, and goes to its caller. Returns why it cannot (enum stack_stop), or
 * STACK_RUNNING. */
static __always_inline u32 unwind_frame(struct stack_walk *walk, const struct code_table *code)
{
	u32 rule;
	u64 pc;

	if (!walk)
		return STACK_UNSUPPORTED;
	if (is_bottom(walk)) {
		walk->is_exact = 1;
		walk->n_to_bottom = walk->record.n_frames + 1;
	}
	/* A return address may be the first one of the next function. */
	pc = walk->at.pc - 1 + walk->is_exact;
	rule = rule_at(walk, pc);
	if (rule == NO_MAPPING && walk->record.n_frames) {
		rule = rule_of_probed(walk);
		if (rule == NO_MAPPING)
			return walk->n_to_bottom == walk->record.n_frames ? STACK_COMPLETE : STACK_OUTSIDE;
		pc = walk->at.pc - 1;
	}
	if (walk->record.n_frames >= STACK_DEPTH)
		return STACK_FULL;
	add_frame(walk);
	walk->is_exact = 0;
	if (rule != NO_MAPPING && (rule & 7) <= RULE_RBP)
		return leave_by_base(walk, rule);
	return leave_otherwise(walk, code, rule, pc);
}

/* Two frames for a call: a fifth less than one. */
STACK_FUNCTION int unwind_two(struct stack_walk *walk, const struct code_table *code)
{
	u32 stop = unwind_frame(walk, code);

	return stop ? stop : unwind_frame(walk, code);
}

/* All frames from where the walk stands. Returns why it ended. */
static __always_inline u32 unwind(struct stack_walk *walk, const struct code_table *code)
{
	int stop = STACK_FULL;

	for (u32 turn = 0; turn <= STACK_DEPTH / 2; turn++) {
		stop = unwind_two(walk, code);
		if (stop)
			break;
	}
	return stop;
}

#endif
