#include "textflag.h"

// func flushCVAP(p unsafe.Pointer, n, line uintptr)
TEXT ·flushCVAP(SB), NOSPLIT, $0-24
	MOVD p+0(FP), R0
	MOVD n+8(FP), R1
	MOVD line+16(FP), R2
	ADD  R0, R1, R1
	SUB  $1, R2, R3
	BIC  R3, R0, R0
popLine:
	DC   CVAP, R0
	ADD  R2, R0, R0
	CMP  R1, R0
	BLO  popLine
	RET

// func flushCVAC(p unsafe.Pointer, n, line uintptr)
TEXT ·flushCVAC(SB), NOSPLIT, $0-24
	MOVD p+0(FP), R0
	MOVD n+8(FP), R1
	MOVD line+16(FP), R2
	ADD  R0, R1, R1
	SUB  $1, R2, R3
	BIC  R3, R0, R0
pocLine:
	DC   CVAC, R0
	ADD  R2, R0, R0
	CMP  R1, R0
	BLO  pocLine
	RET

// func fence()
// DSB ISH: option 0b1011.
TEXT ·fence(SB), NOSPLIT, $0-0
	DSB $11
	RET

// func ctrEL0() uint64
TEXT ·ctrEL0(SB), NOSPLIT, $0-8
	MRS  CTR_EL0, R0
	MOVD R0, ret+0(FP)
	RET
