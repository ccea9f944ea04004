#include "textflag.h"

// func clone3(args *cloneArgs, size uintptr, p *program) (r int)
TEXT ·clone3(SB),NOSPLIT,$0-32
	MOVQ args+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ p+16(FP), R12
	MOVL $435, AX // clone3
	SYSCALL
	TESTQ AX, AX
	JEQ child
	MOVQ AX, r+24(FP)
	RET
child:
	// On the stack of the program.
	SUBQ $32, SP
	MOVQ R12, 0(SP)
	CALL ·runProgram(SB)
	INT $3
