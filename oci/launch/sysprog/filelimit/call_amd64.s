#include "textflag.h"

// func prlimit64(resource uintptr, to *[2]uint64) uintptr
TEXT ·prlimit64(SB), NOSPLIT, $0-24
	MOVQ	$302, AX
	MOVQ	$0, DI
	MOVQ	resource+0(FP), SI
	MOVQ	$0, DX
	MOVQ	to+8(FP), R10
	SYSCALL
	MOVQ	AX, ret+16(FP)
	RET
