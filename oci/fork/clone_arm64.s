#include "textflag.h"

// func clone3(args *cloneArgs, size uintptr, p *program) (r int)
TEXT ·clone3(SB),NOSPLIT,$0-32
	MOVD args+0(FP), R0
	MOVD size+8(FP), R1
	MOVD p+16(FP), R19
	MOVD $435, R8 // clone3
	SVC
	CBZ R0, child
	MOVD R0, r+24(FP)
	RET
child:
	// On the stack of the program.
	SUB $48, RSP
	MOVD R19, 8(RSP)
	CALL ·runProgram(SB)
	BRK
