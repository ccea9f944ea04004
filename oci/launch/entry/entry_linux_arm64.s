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
DATA attr<>+0(SB)/8, $7
DATA attr<>+8(SB)/8, $0
DATA attr<>+16(SB)/8, $0x40000
DATA attr<>+24(SB)/8, $0
GLOBL attr<>(SB), RODATA|NOPTR, $32

// As for amd64.
TEXT ·Start(SB),NOSPLIT|NOFRAME,$0
	MOVD	0(RSP), R9
	CMP	$2, R9
	BLT	done
	MOVD	16(RSP), R10
	MOVWU	(R10), R11
	MOVD	$0x6d696873, R12 // "shim"
	CMPW	R12, R11
	BEQ	done
	AND	$0xffffff, R11, R11
	MOVD	$0x2d2d, R12 // "--"
	CMPW	R12, R11
	BEQ	done
	ADD	$16, RSP, R13
next:
	MOVD	(R13), R10
	MOVWU	(R10), R11
	MOVD	$1, R20 // block signals
	MOVD	$0x6e7572, R12 // "run"
	CMPW	R12, R11
	BEQ	protect
	MOVD	$0x63657865, R12 // "exec"
	CMPW	R12, R11
	BNE	create
	MOVBU	4(R10), R14
	CBZ	R14, protect
create:
	MOVD	$0x61657263, R12 // "crea"
	CMPW	R12, R11
	BNE	other
	MOVWU	4(R10), R11
	AND	$0xffffff, R11, R11
	MOVD	$0, R20
	MOVD	$0x6574, R12 // "te"
	CMPW	R12, R11
	BEQ	protect
other:
	ADD	$8, R13
	SUB	$1, R9
	CMP	$2, R9
	BGE	next
	B	done

protect:
	MOVD	0(RSP), R9
	ADD	$16, RSP, R21
	ADD	R9<<3, R21, R21 // the environment
	MOVD	R21, R13
env:
	MOVD	(R13), R11
	ADD	$8, R13
	CBNZ	R11, env
	SUB	R21, R13, R23 // its bytes, the end included
aux:
	MOVD	(R13), R11
	CBZ	R11, block
	CMP	$31, R11 // AT_EXECFN
	BEQ	found
	ADD	$16, R13
	B	aux
found:
	MOVD	8(R13), R10
	MOVD	(R10), R11
	MOVD	$0x2f64662f7665642f, R12 // "/dev/fd/"
	CMP	R12, R11
	BEQ	again

	MOVD	$428, R8 // open_tree
	MOVD	$-100, R0
	MOVD	$exe<>(SB), R1
	MOVD	$0x80001, R2
	SVC
	CMP	$0, R0
	BLT	block
	MOVD	R0, R22
	MOVD	$442, R8 // mount_setattr
	MOVD	$exe<>+14(SB), R1
	MOVD	$0x1000, R2
	MOVD	$attr<>(SB), R3
	MOVD	$32, R4
	SVC
	CBNZ	R0, close

	SUB	$16, RSP, R24 // below the stack
	SUB	R23, R24, R24
	MOVD	$procs<>(SB), R11
	MOVD	R11, (R24)
	ADD	$8, R24, R25
copy:
	SUB	$8, R23
	MOVD	(R21)(R23), R11
	MOVD	R11, (R25)(R23)
	CBNZ	R23, copy

	MOVD	$281, R8 // execveat
	MOVD	R22, R0
	MOVD	$exe<>+14(SB), R1
	ADD	$8, RSP, R2
	MOVD	R24, R3
	MOVD	$0x1000, R4
	SVC
close:
	MOVD	$57, R8 // close
	MOVD	R22, R0
	SVC
	B	block

again:
	MOVD	$167, R8 // prctl
	MOVD	$15, R0 // PR_SET_NAME
	MOVD	$name<>(SB), R1
	SVC
block:
	MOVD	$167, R8 // prctl
	MOVD	$30, R0 // PR_GET_TIMERSLACK
	SVC
	CMP	$0, R0
	BLE	mask
	MOVD	R0, ·slack(SB)
	MOVD	$167, R8
	MOVD	$29, R0 // PR_SET_TIMERSLACK
	MOVD	$1000000, R1
	SVC
mask:
	CBZ	R20, done
	MOVD	$135, R8 // rt_sigprocmask
	MOVD	$0, R0
	MOVD	$all<>(SB), R1
	MOVD	$0, R2
	MOVD	$8, R3
	SVC
done:
	MOVD	$0, R0
	B	_rt0_arm64_linux(SB)
