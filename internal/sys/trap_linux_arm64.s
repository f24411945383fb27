#include "textflag.h"

// The handler of SIGSYS, by the C convention: R1 is the siginfo_t, in which
// si_syscall is at 24. See the one of amd64.
TEXT sigsys<>(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVWU	24(R1), R9
	SUB	$64, RSP
	MOVD	RSP, R10
	MOVD	$0x0053595347495300, R11	// TrapMark
	MOVD	R11, 0(R10)
	MOVW	R9, 8(R10)
	MOVD	$2, R0
	MOVD	R10, R1
	MOVD	$12, R2
	MOVD	$0x4040, R3	// MSG_NOSIGNAL, MSG_DONTWAIT
	MOVD	$0, R4
	MOVD	$0, R5
	MOVD	$206, R8	// sendto
	SVC
	MOVD	$0x40000000, R8	// the filter kills
	SVC
	BRK	$0

TEXT ·trapHandler(SB),NOSPLIT,$0-8
	MOVD	$sigsys<>(SB), R0
	MOVD	R0, ret+0(FP)
	RET
