#include "textflag.h"

// func clone3(args *cloneArgs, size uintptr, p *Program, run uintptr) (r int)
TEXT ·clone3(SB),NOSPLIT,$0-40
	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ p+16(FP), R12
	MOVQ run+24(FP), R13
	MOVL $435, AX // clone3
	SYSCALL
	TESTQ AX, AX
	JEQ child
	MOVQ AX, r+32(FP)
	RET
child:
	// On the stack of the program. As Go calls its own (ABIInternal): a call by name
	// would take a wrapper, which tells the race detector.
	SUBQ $32, SP
	MOVQ R12, AX
	XORPS X15, X15
	CALL R13
	INT $3
