#include "textflag.h"

// Labels are those of the function that uses a macro, so each function may use
// one that has labels once.

// SUMLINE loads 64 bytes and adds them to the checksum in R3.
#define SUMLINE \
	LDP     (R1), (R4, R5);     \
	LDP     16(R1), (R6, R7);   \
	LDP     32(R1), (R8, R9);   \
	LDP     48(R1), (R10, R11); \
	CRC32CX R4, R3;             \
	CRC32CX R5, R3;             \
	CRC32CX R6, R3;             \
	CRC32CX R7, R3;             \
	CRC32CX R8, R3;             \
	CRC32CX R9, R3;             \
	CRC32CX R10, R3;            \
	CRC32CX R11, R3

// SUMTAIL adds the R2 bytes at R1, fewer than 64, to the checksum in R3.
#define SUMTAIL \
eights:              \
	CMP     $8, R2;   \
	BLO     four;     \
	MOVD.P  8(R1), R4; \
	CRC32CX R4, R3;   \
	SUB     $8, R2;   \
	B       eights;   \
four:                \
	TBZ     $2, R2, two; \
	MOVWU.P 4(R1), R4; \
	CRC32CW R4, R3;   \
two:                 \
	TBZ     $1, R2, one; \
	MOVHU.P 2(R1), R4; \
	CRC32CH R4, R3;   \
one:                 \
	TBZ     $0, R2, done; \
	MOVBU.P 1(R1), R4; \
	CRC32CB R4, R3;   \
done:

// COPYSUM is a function that ends with SUMTAIL; OP is CVAP or CVAC.
#define COPYSUM(OP) \
	MOVD  dst+0(FP), R0;    \
	MOVD  src+8(FP), R1;    \
	MOVD  n+16(FP), R2;     \
	MOVWU crc+24(FP), R3;   \
line:                      \
	CMP   $64, R2;          \
	BLO   eights;           \
	SUMLINE;                \
	STP   (R4, R5), (R0);   \
	STP   (R6, R7), 16(R0); \
	STP   (R8, R9), 32(R0); \
	STP   (R10, R11), 48(R0); \
	DC    OP, R0;           \
	ADD   $64, R0;          \
	ADD   $64, R1;          \
	SUB   $64, R2;          \
	B     line;             \
	SUMTAIL

// FLUSHSUM cleans the line in which each 64 bytes begin, and that of the last byte.
#define FLUSHSUM(OP) \
	MOVD  p+0(FP), R1;      \
	MOVD  n+8(FP), R2;      \
	MOVWU crc+16(FP), R3;   \
	ADD   R1, R2, R12;      \
	SUB   $1, R12;          \
line:                      \
	CMP   $64, R2;          \
	BLO   tail;             \
	SUMLINE;                \
	DC    OP, R1;           \
	ADD   $64, R1;          \
	SUB   $64, R2;          \
	B     line;             \
tail:                      \
	CBZ   R2, done;         \
	DC    OP, R1;           \
	SUMTAIL                 \
	DC    OP, R12

// func copySumCVAP(dst, src unsafe.Pointer, n uintptr, crc uint32) uint32
TEXT ·copySumCVAP(SB), NOSPLIT, $0-36
	COPYSUM(CVAP)
	MOVW R3, ret+32(FP)
	RET

// func copySumCVAC(dst, src unsafe.Pointer, n uintptr, crc uint32) uint32
TEXT ·copySumCVAC(SB), NOSPLIT, $0-36
	COPYSUM(CVAC)
	MOVW R3, ret+32(FP)
	RET

// func flushSumCVAP(p unsafe.Pointer, n uintptr, crc uint32) uint32
TEXT ·flushSumCVAP(SB), NOSPLIT, $0-28
	FLUSHSUM(CVAP)
	MOVW R3, ret+24(FP)
	RET

// func flushSumCVAC(p unsafe.Pointer, n uintptr, crc uint32) uint32
TEXT ·flushSumCVAC(SB), NOSPLIT, $0-28
	FLUSHSUM(CVAC)
	MOVW R3, ret+24(FP)
	RET
