#include "textflag.h"

// The handler of SIGSYS, by the C convention: SI is the siginfo_t, in which
// si_syscall is at 24. It trusts no memory but that, and what it sends may
// therefore be wrong; that it ends the process may not.
TEXT sigsys<>(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVL	24(SI), BX
	MOVQ	SP, R12
	SUBQ	$64, R12
	MOVQ	R12, SP
	MOVQ	$0x0053595347495300, AX	// TrapMark
	MOVQ	AX, 0(R12)
	MOVL	BX, 8(R12)
	MOVL	$44, AX	// sendto
	MOVL	$2, DI
	MOVQ	R12, SI
	MOVL	$12, DX
	MOVL	$0x4040, R10	// MSG_NOSIGNAL, MSG_DONTWAIT
	XORL	R8, R8
	XORL	R9, R9
	SYSCALL
	MOVL	$0x40000000, AX	// the filter kills
	SYSCALL
	INT	$3

TEXT ·trapHandler(SB),NOSPLIT,$0-8
	MOVQ	$sigsys<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
