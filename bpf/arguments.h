/* SPDX-License-Identifier: GPL-2.0-only */
/* arguments.h: where the arguments of a probed function are.
 *
 * A probe can sit behind instructions that moved an argument to another register (gprof_lite/probes/entry_offset.py).
 * Its cookie then says to which: from bit 16 on, four bits for each argument. 0: where the calling convention has it;
 * 1 to 5: where that has the first to the fifth; 6: where it has results.
 */
#ifndef GPROF_LITE_ARGUMENTS_H
#define GPROF_LITE_ARGUMENTS_H

/* Reads a register here and now: merged with another read, it would be one from a computed offset, which the verifier
 * refuses. */
#define REGISTER_NOW(value)                        \
	({                                         \
		u64 now_ = value;                  \
		__asm__ volatile("" : "+r"(now_)); \
		now_;                              \
	})

/* n: a constant below 3. */
static __always_inline u64 probed_argument(struct pt_regs *ctx, u64 cookie, u32 n)
{
	switch (cookie >> (16 + 4 * n) & 0xf) {
	case 1:
		return REGISTER_NOW(PT_REGS_PARM1(ctx));
	case 2:
		return REGISTER_NOW(PT_REGS_PARM2(ctx));
	case 3:
		return REGISTER_NOW(PT_REGS_PARM3(ctx));
	case 4:
		return REGISTER_NOW(PT_REGS_PARM4(ctx));
	case 5:
		return REGISTER_NOW(PT_REGS_PARM5(ctx));
	case 6:
		return REGISTER_NOW(PT_REGS_RC(ctx));
	}
	if (n == 0)
		return REGISTER_NOW(PT_REGS_PARM1(ctx));
	if (n == 1)
		return REGISTER_NOW(PT_REGS_PARM2(ctx));
	return REGISTER_NOW(PT_REGS_PARM3(ctx));
}

#endif
