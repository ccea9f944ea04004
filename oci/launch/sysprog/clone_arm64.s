#include "textflag.h"

// func clone3(args *cloneArgs, size uintptr, p *Program, run uintptr) (r int)
TEXT ·clone3(SB),NOSPLIT,$0-40
	MOVD args+0(FP), R0
	MOVD size+8(FP), R1
	MOVD p+16(FP), R19
	MOVD run+24(FP), R20
	MOVD $435, R8 // clone3
	SVC
	CBZ R0, child
	MOVD R0, r+32(FP)
	RET
child:
	// On the stack of the program. As Go calls its own (ABIInternal): a call by name
	// would take a wrapper, which tells the race detector.
	SUB $48, RSP
	MOVD R19, R0
	CALL (R20)
	BRK
