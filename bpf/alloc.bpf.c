// SPDX-License-Identifier: GPL-2.0-only
/* alloc.bpf.c: what a target allocates and has not freed, per stack, kept in the kernel.
 *
 * Probes on the functions of an allocator, attached per process by user space; the cookie of a probe says which
 * function it is. The entry decides by size and chance whether a call is followed. The return knows the address, takes
 * the stack of the caller, and adds the block to `blocks` and to the totals of its stack. A free takes it out again.
 *
 * Sampling is undone when a block is added: its weight is what it stands for, whatever the tuning was then.
 * Which addresses are followed depends on a hash of the address (struct alloc_level): when `blocks` gets full, fewer
 * are, and sweep() takes out those that are not any more. Nothing is ever evicted by age.
 *
 * User space says how much time the probes may take from now on. When that is used up no further allocation is
 * followed, so no return is probed and no stack taken; and user space is woken, once, to take the probes away, for the
 * traps themselves go on. Frees and mappings are still seen: one that is missed makes wrong what is known already.
 *
 * Mappings (mmap, munmap, mremap, brk) that the program makes itself are rare and overlap as they like: they go to user
 * space as events (probes/mapped_regions.py), with the id of their stack.
 */
#include "compat.h"
#include "account.h"
#include "alloc.h"
#include "arguments.h"

MAP_HASH(targets, u32, struct alloc_target, 64)
MAP_HASH(code, u32, struct code_table, 64)
MAP_HASH(threads, u32, struct thread_state, 16384)
MAP_HASH(blocks, struct block_key, struct block, 262144)
MAP_HASH(totals, u64, struct stack_totals, 8192)
MAP_HASH(stacks, u64, struct stack_record, 8192)
MAP_ARRAY(tunings, u32, struct alloc_tuning, 1)
MAP_ARRAY(levels, u32, struct alloc_level, 1)
MAP_PERCPU_ARRAY(counters, u32, struct alloc_counters, 1)
/* For FIND_OR_MAKE. */
MAP_ARRAY(blank_thread, u32, struct thread_state, 1)
MAP_ARRAY(blank_totals, u32, struct stack_totals, 1)
MAP_ARRAY(sweeps, u32, struct alloc_sweep, 1)
MAP_ARRAY(prices, u32, struct alloc_prices, 1)
MAP_ARRAY(brakes, u32, struct alloc_brake, 1)
MAP_ARRAY(spending, u32, struct alloc_spending, 1)
MAP_RING(events, 1 << 19)
/* By itself, so that whoever waits for it is not woken by every mapping. */
MAP_RING(alarms, 4096)

/* Where the kernel keeps two things that no helper tells, in bytes; 0: not known. Numbers, because for accesses that
 * are to be relocated libbpf would decode all types of the kernel, which takes the agent 11 MB whenever it loads this.
 */
TUNABLE(u32, task_tgid_at, MEMBER_AT(struct task_struct, tgid))
TUNABLE(u32, task_mm_at, MEMBER_AT(struct task_struct, mm))
TUNABLE(u32, mm_brk_at, MEMBER_AT(struct mm_struct, brk))

static __always_inline void count_loss(u32 loss)
{
	struct alloc_counters *mine = ONLY(counters);

	if (mine && loss < LOSS_COUNT)
		ADD(mine->losses[loss], 1);
}

static __always_inline void count_blocks(s64 n)
{
	struct alloc_level *level = ONLY(levels);
	struct alloc_counters *mine = ONLY(counters);

	if (level)
		ADD(level->n_blocks, n);
	if (mine && n > 0)
		ADD(mine->n_allocations, 1);
	if (mine && n < 0)
		ADD(mine->n_frees, 1);
}

/* ---- what it may cost ---- */

/* Tells user space that the limit is reached: one u64, the limit. */
static __always_inline void alarm(u64 limit_ns)
{
	u64 *told = ring_reserve(alarms, sizeof(*told));

	if (!told)
		return;
	*told = limit_ns;
	ring_submit_now(told);
}

/* Enters what a hit costs, and says whether the limit is not reached yet. Two CPUs that reach it at once may tell it
 * twice. */
static __always_inline bool spend(u64 price_ns)
{
	struct alloc_spending *sum = ONLY(spending);
	struct alloc_brake *brake = ONLY(brakes);

	if (!sum || !brake)
		return true;
	ADD(sum->spent_ns, price_ns);
	if (!brake->limit_ns || sum->spent_ns < brake->limit_ns)
		return true;
	if (sum->told_ns != brake->limit_ns) {
		sum->told_ns = brake->limit_ns;
		alarm(brake->limit_ns);
	}
	return false;
}

static __always_inline u64 hit_price(u32 function)
{
	struct alloc_prices *price = ONLY(prices);

	return price && function < FN_COUNT ? price->hit_ns[function] : 0;
}

static __always_inline u64 return_price(u32 function)
{
	struct alloc_prices *price = ONLY(prices);

	return price && function < FN_COUNT ? price->return_ns[function] : 0;
}

static __always_inline u64 stack_price(void)
{
	struct alloc_prices *price = ONLY(prices);

	return price ? price->sample_ns : 0;
}

/* ---- which blocks are followed, and what they stand for ---- */

/* What a block of this size stands for; false: it is not followed. */
static __always_inline bool choose(const struct alloc_tuning *tuning, u64 size, struct block *block)
{
	u64 count = COUNT_ONE;

	block->weight_bytes = size;
	block->flags = 0;
	if (size >= tuning->large_bytes) {
		block->flags = BLOCK_ALWAYS;
	} else if (size >= tuning->min_size_bytes) {
		u32 rate = tuning->sampling_rate;

		if (rate > 1) {
			if (bpf_get_prandom_u32() % rate)
				return false;
			block->weight_bytes = size * rate;
			count = (u64)COUNT_ONE * rate;
		}
	} else if (size < tuning->sample_bytes) {
		if ((u64)bpf_get_prandom_u32() * tuning->sample_bytes >= size << 32)
			return false;
		block->weight_bytes = tuning->sample_bytes;
		count = COUNT_ONE * tuning->sample_bytes / size;
	}
	block->count = count;
	return true;
}

/* Is this address among those followed, when a share of 1/2^shift is? */
static __always_inline bool is_followed(const struct block_key *key, u64 shift)
{
	return !shift || !(mix(mix(key->tgid, key->address), 0) >> (64 - (shift & 31)));
}

/* How many halvings are added while the last quarter of `blocks` fills up, until sweep() has made room: two more for
 * each half of what is left, so that each half takes twice as many blocks to fill as the one before. */
static __always_inline u64 crowding(const struct alloc_tuning *tuning, const struct alloc_level *level)
{
	u64 left = tuning->max_blocks - level->n_blocks, quarter = tuning->max_blocks >> 2, shift = 0;

	if (level->n_blocks < 0)
		return 0;
	if (level->n_blocks >= tuning->max_blocks)
		return 16;
	for (u32 i = 0; i < 8; i++)
		shift += 2 * (left <= (quarter >> i));
	return shift;
}

/* Applies the share of addresses to a block that is about to be added; false: it is not among them. */
static __always_inline bool share(const struct alloc_tuning *tuning, const struct block_key *key, struct block *block)
{
	struct alloc_level *level = ONLY(levels);
	u64 shift;

	block->shift = 0;
	if (!level || (block->flags & BLOCK_ALWAYS))
		return true;
	shift = level->shift + crowding(tuning, level);
	if (shift > 20)
		shift = 20;
	if (!is_followed(key, shift))
		return false;
	block->shift = shift;
	block->weight_bytes <<= shift;
	block->count <<= shift;
	return true;
}

/* ---- totals ---- */

static __always_inline void count_outstanding(struct stack_totals *sums, const struct block *block, s64 sign)
{
	struct epoch_totals *epoch = &sums->epochs[block->epoch & (EPOCHS - 1)];
	u64 bytes = sign * block->weight_bytes;

	ADD(sums->n_outstanding, sign * block->count);
	ADD(sums->outstanding_bytes, bytes);
	ADD(epoch->outstanding_bytes, bytes);
	ADD(epoch->n_outstanding, (u32)sign);
}

static __always_inline void leave_totals(const struct block *block)
{
	struct stack_totals *sums = map_lookup(totals, &block->stack_id);

	if (sums)
		count_outstanding(sums, block, -1);
}

/* Adds a new block to the totals of its stack. old: the block it was before realloc, or NULL. Bytes that were
 * allocated by the same stack before are not allocated again. */
static __always_inline void enter_totals(struct stack_totals *sums, const struct block *block, const struct block *old,
					 u64 size)
{
	struct epoch_totals *epoch = &sums->epochs[block->epoch & (EPOCHS - 1)];
	bool grown = old && old->stack_id == block->stack_id;
	u64 bytes = block->weight_bytes;

	if (grown)
		bytes = bytes > old->weight_bytes ? bytes - old->weight_bytes : 0;
	ADD(sums->allocated_bytes, bytes);
	ADD(epoch->allocated_bytes, bytes);
	if (!grown) {
		ADD(sums->n_allocated, block->count);
		ADD(epoch->n_allocated, 1);
	}
	ADD(sums->n_sampled, 1);
	if (size > sums->largest_bytes)
		sums->largest_bytes = size;
	count_outstanding(sums, block, 1);
}

/* The totals of a stack, made if need be; NULL: there is no room. */
static __always_inline struct stack_totals *totals_of(u64 id, u32 tgid, u32 image)
{
	struct stack_totals *sums = FIND_OR_MAKE(totals, &id, blank_totals);

	if (!sums) {
		count_loss(LOSS_STACKS_FULL);
		return NULL;
	}
	sums->tgid = tgid;
	sums->image = image;
	return sums;
}

/* ---- blocks ---- */

/* Take a block out. Whoever deletes it has it, nobody else. */
static __always_inline bool take_block(const struct block_key *key, struct block *block)
{
	struct block *found = map_lookup(blocks, key);

	if (!found)
		return false;
	*block = *found;
	if (map_delete(blocks, key))
		return false;
	count_blocks(-1);
	return true;
}

static __always_inline bool put_block(const struct block_key *key, const struct block *block)
{
	long refused = map_update(blocks, key, block, BPF_NOEXIST);

	if (refused == -EEXIST) {
		/* The allocator hands out an address that we think is in use: we missed how it was freed. */
		struct block stale;

		count_loss(LOSS_ADDRESS_REUSED);
		if (take_block(key, &stale))
			leave_totals(&stale);
		refused = map_update(blocks, key, block, BPF_NOEXIST);
	}
	if (refused) {
		count_loss(LOSS_MAP_FULL);
		return false;
	}
	count_blocks(1);
	return true;
}

/* ---- stacks ---- */

static __always_inline bool take_stack(struct pt_regs *ctx, struct thread_state *thread,
				       const struct alloc_target *target, u32 tgid)
{
	struct alloc_counters *mine = ONLY(counters);
	struct stack_record *known;

	thread->walk.at.pc = PT_REGS_IP(ctx);
	thread->walk.at.sp = PT_REGS_SP(ctx);
	thread->walk.at.bp = PT_REGS_FP(ctx);

	thread->walk.record.tgid = tgid;
	thread->walk.record.image = target->image;
	thread->walk.record.tag = thread->function >= FN_MMAP ? thread->function : FN_MALLOC;
	collect_stack(&thread->walk, map_lookup(code, &tgid));
	spend(stack_price());
	if (mine) {
		u32 stop = thread->walk.record.stop;

		ADD(mine->n_sampled, 1);
		if (stop < STACK_STOPS)
			ADD(mine->stops[stop], 1);
	}
	known = map_lookup(stacks, &thread->walk.id);
	if (!known) {
		if (map_update(stacks, &thread->walk.id, &thread->walk.record, BPF_ANY)) {
			count_loss(LOSS_STACKS_FULL);
			return false;
		}
		return true;
	}
	if (known->check != thread->walk.record.check) {
		count_loss(LOSS_HASH_COLLISION);
		return false;
	}
	return true;
}

/* ---- entry ---- */

static __always_inline struct thread_state *own_state(u32 tid)
{
	struct thread_state *thread = FIND_OR_MAKE(threads, &tid, blank_thread);

	if (!thread)
		count_loss(LOSS_THREADS_FULL);
	return thread;
}

/* A call within a call that is followed already? While the outer one runs, the kernel keeps the address of its return
 * probe, which is in no code range, where the return address was; that place is higher up the stack, or the same when
 * the outer function ends by jumping to the inner one. Else the return of the outer one was missed, and this call takes
 * its place. */
static __always_inline bool is_inner(struct thread_state *thread, u64 stack_top, const struct code_table *table)
{
	u64 back = 0;

	if (!thread->function)
		return false;
	if (stack_top <= thread->stack_top &&
	    !bpf_probe_read_user(&back, sizeof(back), (void *)(thread->stack_top - 8)) &&
	    !(table && code_end(table, back)))
		return true;
	count_loss(LOSS_PENDING_LOST);
	thread->function = FN_NONE;
	return false;
}

/* Begins to follow a call. Returns NULL when it shall not be: not our target, or an inner call. */
static __always_inline struct thread_state *follow(struct pt_regs *ctx, u32 function, u64 pushed_bytes, bool mapping)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tgid = id >> 32;
	struct alloc_target *target = map_lookup(targets, &tgid);
	struct code_table *table;
	struct thread_state *thread;
	u64 top = PT_REGS_SP(ctx) + pushed_bytes, caller = 0, flags = 0;

	if (!target)
		return NULL;
	table = map_lookup(code, &tgid);
	if (bpf_probe_read_user(&caller, sizeof(caller), (void *)top))
		count_loss(LOSS_BAD_READ);
	if (table)
		flags = code_end(table, caller);
	if (flags & (mapping ? CODE_SYSTEM : CODE_ALLOCATOR))
		return NULL;
	thread = own_state((u32)id);
	if (!thread || is_inner(thread, top + 8, table))
		return NULL;
	if (thread->tail_top == top + 8 && thread->tail_caller == caller && function == FN_MALLOC) {
		thread->tail_top = 0;
		return NULL;
	}
	thread->function = function;
	thread->generation = target->generation;
	thread->stack_top = top + 8;
	thread->caller = caller;
	thread->has_old = 0;
	return thread;
}

/* realloc(NULL, n) may be a jump to malloc. When it was not chosen, malloc must not choose again. */
static __always_inline void pass_over(struct pt_regs *ctx, u64 pushed_bytes)
{
	struct thread_state *thread = own_state((u32)bpf_get_current_pid_tgid());
	u64 top = PT_REGS_SP(ctx) + pushed_bytes, caller = 0;

	if (!thread || bpf_probe_read_user(&caller, sizeof(caller), (void *)top))
		return;
	thread->tail_top = top + 8;
	thread->tail_caller = caller;
}

static __always_inline u64 product(u64 a, u64 b)
{
	/* Far more than there is memory fails in the allocator, too; no division, which costs. */
	if ((a | b) >> 40 || (a >> 24 && b >> 24 && (a | b) >> 32))
		return ~0ull;
	return a * b;
}

static __always_inline u64 size_of_call(struct pt_regs *ctx, u64 cookie, u32 function)
{
	switch (function) {
	case FN_CALLOC:
		return product(probed_argument(ctx, cookie, 0), probed_argument(ctx, cookie, 1));
	case FN_REALLOC:
	case FN_MEMALIGN:
		return probed_argument(ctx, cookie, 1);
	case FN_REALLOCARRAY:
		return product(probed_argument(ctx, cookie, 1), probed_argument(ctx, cookie, 2));
	case FN_POSIX_MEMALIGN:
		return probed_argument(ctx, cookie, 2);
	default:
		return probed_argument(ctx, cookie, 0);
	}
}

/* The entry of an allocating function. Returns whether its return is of interest. is_allowed: the limit is not reached;
 * else only what becomes of a block that is followed already is. */
static __always_inline bool enter_allocation(struct pt_regs *ctx, u64 cookie, u32 function, u64 pushed_bytes,
					     bool is_allowed)
{
	struct alloc_tuning *tuning = ONLY(tunings);
	u64 size = size_of_call(ctx, cookie, function), old = 0;
	bool reallocates = function == FN_REALLOC || function == FN_REALLOCARRAY, chosen, has_old = false;
	struct block block = {}, old_block = {};
	struct block_key key = {};
	struct thread_state *thread;

	if (!tuning)
		return false;
	chosen = size != ~0ull && choose(tuning, size, &block);
	if (reallocates)
		old = probed_argument(ctx, cookie, 0);
	if (old) {
		struct alloc_target *target;

		key.address = old;
		key.tgid = bpf_get_current_pid_tgid() >> 32;
		target = map_lookup(targets, &key.tgid);
		if (target)
			key.generation = target->generation;
		/* Out of the map until we know how it went: as soon as it is freed another thread may get its address.
		 */
		has_old = target && take_block(&key, &old_block);
	}
	if (chosen && !has_old && !(is_allowed && tuning->is_taking)) {
		if (tuning->is_taking)
			count_loss(LOSS_OVER_LIMIT);
		chosen = false;
	}
	if (!chosen && !has_old) {
		if (reallocates && !old)
			pass_over(ctx, pushed_bytes);
		return false;
	}
	thread = follow(ctx, function, pushed_bytes, false);
	if (!thread) {
		if (has_old)
			put_block(&key, &old_block);
		return false;
	}
	if (!chosen)
		block.count = 0;
	thread->is_chosen = chosen;
	thread->block = block;
	thread->size = size;
	thread->arguments[0] = probed_argument(ctx, cookie, 0);
	thread->has_old = has_old;
	thread->old = old_block;
	return true;
}

/* Where the heap of the current process ends; 0: not known. */
static __always_inline u64 heap_end(void)
{
	u64 mm = 0, end = 0;

	if (!task_mm_at || !mm_brk_at)
		return 0;
	if (bpf_probe_read_kernel(&mm, sizeof(mm), (void *)(bpf_get_current_task() + task_mm_at)) ||
	    bpf_probe_read_kernel(&end, sizeof(end), (void *)(mm + mm_brk_at)))
		count_loss(LOSS_BAD_READ);
	return end;
}

/* The entry of a function that maps or unmaps. */
static __always_inline bool enter_mapping(struct pt_regs *ctx, u32 function, u64 pushed_bytes)
{
	u64 old_end = function == FN_BRK ? heap_end() : 0;
	struct thread_state *thread;

	if (function == FN_BRK && !old_end)
		return false;
	thread = follow(ctx, function, pushed_bytes, true);
	if (!thread)
		return false;
	thread->arguments[0] = PT_REGS_PARM1(ctx);
	thread->arguments[1] = PT_REGS_PARM2(ctx);
	thread->arguments[2] = PT_REGS_PARM3(ctx);
	thread->arguments[3] = PT_REGS_PARM4(ctx);
	if (function == FN_BRK)
		thread->arguments[1] = old_end;
	return true;
}

static __always_inline bool enter(struct pt_regs *ctx)
{
	u64 cookie = bpf_get_attach_cookie(ctx);
	u32 function = cookie & 0xff;
	struct alloc_counters *mine = ONLY(counters);
	bool is_allowed;

	if (function >= FN_COUNT || !mine)
		return false;
	ADD(mine->hits[function], 1);
	is_allowed = spend(hit_price(function));
	if (function >= FN_MMAP)
		return enter_mapping(ctx, function, cookie >> 8 & 0xff);
	return enter_allocation(ctx, cookie, function, cookie >> 8 & 0xff, is_allowed);
}

/* ---- return ---- */

/* Adds the block that a followed call gave. False: it is not to be kept, or there was no room. */
static __always_inline bool add_block(struct pt_regs *ctx, struct thread_state *thread, struct block_key *key,
				      const struct alloc_target *target)
{
	struct alloc_tuning *tuning = ONLY(tunings);
	struct stack_totals *sums;

	if (!thread->is_chosen || !tuning || !share(tuning, key, &thread->block))
		return false;
	if (!take_stack(ctx, thread, target, key->tgid))
		return false;
	sums = totals_of(thread->walk.id, key->tgid, target->image);
	if (!sums)
		return false;
	thread->block.stack_id = thread->walk.id;
	/* Grown by realloc, a block is as old as it was: only so can one that grows for ever be seen to. */
	thread->block.epoch = thread->has_old ? thread->old.epoch
					      : epoch_now(tuning->epoch_zero_ns, tuning->epoch_ns, tuning->n_epochs);
	if (!put_block(key, &thread->block))
		return false;
	enter_totals(sums, &thread->block, thread->has_old ? &thread->old : NULL, thread->size);
	return true;
}

static __always_inline void leave_allocation(struct pt_regs *ctx, struct thread_state *thread, u32 function,
					     const struct alloc_target *target, u32 tgid)
{
	struct block_key key = {.address = PT_REGS_RC(ctx), .tgid = tgid, .generation = thread->generation};

	if (function == FN_POSIX_MEMALIGN) {
		if ((u32)PT_REGS_RC(ctx))
			return;
		if (bpf_probe_read_user(&key.address, sizeof(key.address), (void *)thread->arguments[0])) {
			count_loss(LOSS_BAD_READ);
			return;
		}
	}
	if (!key.address && thread->has_old && thread->size) {
		/* Failed: the old block is still there. */
		key.address = thread->arguments[0];
		put_block(&key, &thread->old);
		return;
	}
	if (key.address)
		add_block(ctx, thread, &key, target);
	if (thread->has_old)
		leave_totals(&thread->old);
}

static __always_inline void leave_mapping(struct pt_regs *ctx, struct thread_state *thread, u32 function,
					  const struct alloc_target *target, u32 tgid)
{
	u64 result = PT_REGS_RC(ctx), *arguments = thread->arguments;
	struct alloc_event *event;
	bool gives = function != FN_MUNMAP;

	if (gives ? result >= -4095ull : result != 0)
		return;
	if (function == FN_BRK && result)
		return;
	if (gives && !take_stack(ctx, thread, target, tgid))
		return;
	event = ring_reserve(events, sizeof(*event));
	if (!event) {
		count_loss(LOSS_RING_DROPPED);
		return;
	}
	event->type = function;
	event->tgid = tgid;
	event->generation = thread->generation;
	event->other = 0;
	event->time_ns = bpf_ktime_get_ns();
	event->result = result;
	event->arguments[0] = arguments[0];
	event->arguments[1] = arguments[1];
	event->arguments[2] = arguments[2];
	event->arguments[3] = arguments[3];
	event->stack_id = gives ? thread->walk.id : 0;
	ring_submit(event);
}

static __always_inline void leave(struct pt_regs *ctx)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id, tgid = id >> 32, function;
	struct thread_state *thread = map_lookup(threads, &tid);
	struct alloc_target *target;
	struct alloc_counters *mine = ONLY(counters);

	/* Any other stack pointer: the return of a call that is not followed. */
	if (!thread || !mine || !thread->function || thread->stack_top != PT_REGS_SP(ctx))
		return;
	function = thread->function;
	if (function < FN_COUNT)
		ADD(mine->returns[function], 1);
	spend(return_price(function));
	target = map_lookup(targets, &tgid);
	if (target && target->generation == thread->generation) {
		if (function >= FN_MMAP)
			leave_mapping(ctx, thread, function, target, tgid);
		else
			leave_allocation(ctx, thread, function, target, tgid);
	}
	thread->function = FN_NONE;
}

static __always_inline void tell(u32 type, u32 tgid, u32 generation, u32 other)
{
	struct alloc_event *event = ring_reserve(events, sizeof(*event));

	if (!event) {
		count_loss(LOSS_RING_DROPPED);
		return;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->type = type;
	event->tgid = tgid;
	event->generation = generation;
	event->other = other;
	event->time_ns = bpf_ktime_get_ns();
	ring_submit(event);
}

/* ---- programs ---- */

/* Both ends in one, where the kernel can skip the return (6.13). */
PROGRAM_KPROBE("kprobe/alloc_session", alloc_session)
{
	/* At the return the instruction pointer is the caller's, not the probe's. */
	if (bpf_get_func_ip(ctx) == PT_REGS_IP(ctx))
		return !enter(ctx);
	leave(ctx);
	return 0;
}

PROGRAM_KPROBE("kprobe/alloc_entry", alloc_entry)
{
	enter(ctx);
	return 0;
}

PROGRAM_KPROBE("kprobe/alloc_return", alloc_return)
{
	leave(ctx);
	return 0;
}

PROGRAM_KPROBE("kprobe/free_entry", free_entry)
{
	struct block_key key = {.address = PT_REGS_PARM1(ctx), .tgid = bpf_get_current_pid_tgid() >> 32};
	struct alloc_target *target = map_lookup(targets, &key.tgid);
	struct alloc_counters *mine = ONLY(counters);
	struct block block;

	if (mine)
		ADD(mine->hits[FN_FREE], 1);
	spend(hit_price(FN_FREE));
	if (!target || !key.address)
		return 0;
	key.generation = target->generation;
	if (take_block(&key, &block))
		leave_totals(&block);
	return 0;
}

/* A target made a child: user space decides whether to follow it. */
RAW_TRACEPOINT(sched_process_fork, target_fork)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32, child = 0;
	struct alloc_target *target = map_lookup(targets, &tgid);

	if (!target || !task_tgid_at)
		return 0;
	if (bpf_probe_read_kernel(&child, sizeof(child), (void *)(RAW_ARGUMENT(ctx, 1) + task_tgid_at))) {
		count_loss(LOSS_BAD_READ);
		return 0;
	}
	/* The same: only a new thread. */
	if (child != tgid)
		tell(EVENT_FORK, tgid, target->generation, child);
	return 0;
}

/* A target became another program: its blocks and stacks are nobody's now, and its code is elsewhere. */
RAW_TRACEPOINT(sched_process_exec, target_exec)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tgid = id >> 32, tid = id;
	struct alloc_target *target = map_lookup(targets, &tgid);

	if (!target)
		return 0;
	ADD(target->generation, 1);
	ADD(target->image, 1);
	map_delete(code, &tgid);
	forget_mappings(tgid);
	map_delete(threads, &tid);
	tell(EVENT_EXEC, tgid, target->generation, target->image);
	return 0;
}

/* A thread ends, and what it was in the middle of with it. The last one to go is not known here; user space looks. */
RAW_TRACEPOINT(sched_process_exit, target_exit)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tgid = id >> 32, tid = id;
	struct alloc_target *target = map_lookup(targets, &tgid);

	if (!target)
		return 0;
	map_delete(threads, &tid);
	if (tid == tgid)
		tell(EVENT_EXIT, tgid, target->generation, 0);
	return 0;
}

#ifndef FOR_BCC
/* One block under a new share of addresses: dropped, or worth twice as much. */
static long sweep_block(void *map, struct block_key *key, struct block *block, struct alloc_sweep *sweep)
{
	struct alloc_target *target = map_lookup(targets, &key->tgid);
	struct stack_totals *sums;
	struct block taken;
	u64 more, shift = sweep->shift;

	if (!target || target->generation != key->generation) {
		/* What it was counted in is gone, too. */
		if (take_block(key, &taken))
			sweep->n_dropped++;
		return 0;
	}
	if (block->flags & BLOCK_ALWAYS || block->shift >= shift)
		return 0;
	if (!is_followed(key, shift)) {
		if (take_block(key, &taken)) {
			leave_totals(&taken);
			sweep->n_dropped++;
		}
		return 0;
	}
	more = shift - block->shift;
	taken = *block;
	taken.weight_bytes = (taken.weight_bytes << (more & 31)) - taken.weight_bytes;
	taken.count = (taken.count << (more & 31)) - taken.count;
	block->weight_bytes += taken.weight_bytes;
	block->count += taken.count;
	block->shift = shift;
	sums = map_lookup(totals, &taken.stack_id);
	if (sums) {
		count_outstanding(sums, &taken, 1);
		/* The same block: it only stands for more. */
		ADD(sums->epochs[taken.epoch & (EPOCHS - 1)].n_outstanding, -1);
	}
	sweep->n_kept++;
	return 0;
}

/* Run by user space (BPF_PROG_TEST_RUN), never attached: takes out of `blocks` what is not followed any more. */
RAW_TRACEPOINT(gprof_lite_sweep, sweep_blocks)
{
	struct alloc_sweep *told = ONLY(sweeps), sweep = {};
	struct alloc_level *level = ONLY(levels);

	if (!told || !level)
		return 0;
	/* First of all: from now on new blocks come in by the new share. */
	level->shift = sweep.shift = told->shift;
	bpf_for_each_map_elem(&blocks, sweep_block, &sweep, 0);
	*told = sweep;
	return 0;
}
#endif
