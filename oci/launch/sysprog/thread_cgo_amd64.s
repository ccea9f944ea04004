//go:build cgo

#include "textflag.h"

// func threadPointer() uintptr
TEXT ·threadPointer(SB),NOSPLIT,$8-8
	MOVL $158, AX // arch_prctl
	MOVQ $0x1003, DI // ARCH_GET_FS
	LEAQ fs-8(SP), SI
	SYSCALL
	MOVQ fs-8(SP), AX
	MOVQ AX, ret+0(FP)
	RET
