#include "textflag.h"

DATA all<>+0(SB)/8, $0xffffffffffffffff
GLOBL all<>(SB), RODATA|NOPTR, $8
DATA exe<>+0(SB)/8, $"/proc/se"
DATA exe<>+8(SB)/8, $"lf/exe\x00\x00"
GLOBL exe<>(SB), RODATA|NOPTR, $16
DATA name<>+0(SB)/8, $"gantry-r"
DATA name<>+8(SB)/8, $"untime\x00\x00"
GLOBL name<>(SB), RODATA|NOPTR, $16

DATA procs<>+0(SB)/8, $"GOMAXPRO"
DATA procs<>+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL procs<>(SB), RODATA|NOPTR, $16

// struct mount_attr: read-only, nosuid, nodev; private.
DATA attr<>+0(SB)/8, $7
DATA attr<>+8(SB)/8, $0
DATA attr<>+16(SB)/8, $0x40000
DATA attr<>+24(SB)/8, $0
GLOBL attr<>(SB), RODATA|NOPTR, $32

// At the stack pointer are argc and argv, as execve(2) leaves them, then the environment
// and the auxiliary vector. A string may be read eight bytes at a time: behind the last
// one, the name of the executable, are as many zeros.
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
	MOVL	$1, R12 // block signals
	CMPL	AX, $0x6e7572 // "run"
	JEQ	protect
	CMPL	AX, $0x63657865 // "exec"
	JNE	create
	CMPB	4(DI), $0
	JEQ	protect
create:
	CMPL	AX, $0x61657263 // "crea"
	JNE	other
	MOVL	4(DI), AX
	ANDL	$0xffffff, AX
	XORL	R12, R12
	CMPL	AX, $0x6574 // "te"
	JEQ	protect
other:
	ADDQ	$8, BX
	DECQ	CX
	CMPQ	CX, $2
	JGE	next
	JMP	done

	// Execute the same file through a mount of its own, once: then the kernel calls it
	// by a descriptor.
protect:
	MOVQ	0(SP), CX
	LEAQ	16(SP)(CX*8), R14 // the environment
	MOVQ	R14, BX
env:
	MOVQ	(BX), AX
	ADDQ	$8, BX
	TESTQ	AX, AX
	JNE	env
	MOVQ	BX, R9
	SUBQ	R14, R9 // its bytes, the end included
aux:
	MOVQ	(BX), AX
	TESTQ	AX, AX
	JEQ	block
	CMPQ	AX, $31 // AT_EXECFN
	JEQ	found
	ADDQ	$16, BX
	JMP	aux
found:
	MOVQ	8(BX), DI
	MOVQ	$0x2f64662f7665642f, AX // "/dev/fd/"
	CMPQ	AX, (DI)
	JEQ	again

	MOVL	$428, AX // open_tree
	MOVQ	$-100, DI // AT_FDCWD
	LEAQ	exe<>(SB), SI
	MOVL	$0x80001, DX // OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC
	SYSCALL
	TESTQ	AX, AX
	JLT	block
	MOVQ	AX, R13
	MOVL	$442, AX // mount_setattr
	MOVQ	R13, DI
	LEAQ	exe<>+14(SB), SI // ""
	MOVL	$0x1000, DX // AT_EMPTY_PATH
	LEAQ	attr<>(SB), R10
	MOVL	$32, R8
	SYSCALL
	TESTQ	AX, AX
	JNE	close

	// One variable more than there are, below the stack: no signal has a handler yet.
	LEAQ	-16(SP), R15
	SUBQ	R9, R15
	LEAQ	procs<>(SB), AX
	MOVQ	AX, (R15)
copy:
	SUBQ	$8, R9
	MOVQ	(R14)(R9*1), AX
	MOVQ	AX, 8(R15)(R9*1)
	JNE	copy

	MOVL	$322, AX // execveat
	MOVQ	R13, DI
	LEAQ	exe<>+14(SB), SI
	LEAQ	8(SP), DX
	MOVQ	R15, R10
	MOVL	$0x1000, R8
	SYSCALL
close:
	MOVL	$3, AX // close
	MOVQ	R13, DI
	SYSCALL
	JMP	block

again:
	MOVL	$157, AX // prctl
	MOVL	$15, DI // PR_SET_NAME: before Linux 6.14 it is the descriptor's number
	LEAQ	name<>(SB), SI
	SYSCALL
block:
	MOVL	$157, AX // prctl
	MOVL	$30, DI // PR_GET_TIMERSLACK
	SYSCALL
	TESTQ	AX, AX
	JLE	mask
	MOVQ	AX, ·slack(SB)
	MOVL	$157, AX
	MOVL	$29, DI // PR_SET_TIMERSLACK
	MOVL	$1000000, SI
	SYSCALL
mask:
	TESTL	R12, R12
	JEQ	done
	MOVL	$14, AX // rt_sigprocmask
	XORL	DI, DI // SIG_BLOCK
	LEAQ	all<>(SB), SI
	XORL	DX, DX
	MOVL	$8, R10
	SYSCALL
	XORL	DX, DX
done:
	JMP	_rt0_amd64_linux(SB)
