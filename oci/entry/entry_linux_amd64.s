#include "textflag.h"

DATA all<>+0(SB)/8, $0xffffffffffffffff
GLOBL all<>(SB), RODATA|NOPTR, $8

// At the stack pointer are argc and argv, as execve(2) leaves them. A string may
// be read four bytes at a time: behind the last one is the name of the executable.
TEXT ·Start(SB),NOSPLIT|NOFRAME,$0
	MOVQ	0(SP), CX
	CMPQ	CX, $2
	JLT	done
	MOVQ	16(SP), DI
	MOVL	(DI), AX
	CMPL	AX, $0x6d696873 // "shim": holds containers for long
	JEQ	done
	ANDL	$0xffffff, AX
	CMPL	AX, $0x2d2d // "--": the reaper, whose other arguments are a program's
	JEQ	done
	LEAQ	16(SP), BX
next:
	MOVQ	(BX), DI
	MOVL	(DI), AX
	CMPL	AX, $0x6e7572 // "run"
	JEQ	block
	CMPL	AX, $0x63657865 // "exec"
	JNE	other
	CMPB	4(DI), $0
	JEQ	block
other:
	ADDQ	$8, BX
	DECQ	CX
	CMPQ	CX, $2
	JGE	next
	JMP	done
block:
	MOVL	$14, AX // rt_sigprocmask
	XORL	DI, DI // SIG_BLOCK
	LEAQ	all<>(SB), SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
	XORL	DX, DX
done:
	JMP	_rt0_amd64_linux(SB)
