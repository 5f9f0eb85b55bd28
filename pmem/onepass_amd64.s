#include "textflag.h"

// CRC-32C by folding, as in Gopal et al., "Fast CRC Computation for Generic
// Polynomials Using PCLMULQDQ Instruction" (Intel, 2009), in its bit-reflected
// form. X0 to X3 hold a remainder of 64 bytes. A fold moves 16 bytes of it
// forward by a distance and adds what is there; foldKeys (onepass_amd64.go) has a
// pair of constants for each distance.

// FOLD moves X over the distance of the keys in X4 and adds D; T is clobbered.
#define FOLD(X, D, T) \
	MOVO      X, T; \
	PCLMULQDQ $0x00, X4, T; \
	PCLMULQDQ $0x11, X4, X; \
	PXOR      D, T; \
	PXOR      T, X

#define LOADLINE(A, B, C, D) \
	MOVOU (SI), A; \
	MOVOU 16(SI), B; \
	MOVOU 32(SI), C; \
	MOVOU 48(SI), D

#define STORELINE(A, B, C, D) \
	MOVNTO A, (DI); \
	MOVNTO B, 16(DI); \
	MOVNTO C, 32(DI); \
	MOVNTO D, 48(DI)

#define FOLDLINE \
	FOLD(X0, X10, X5); \
	FOLD(X1, X11, X6); \
	FOLD(X2, X12, X7); \
	FOLD(X3, X13, X8)

// BEGIN adds the checksum so far, in AX, to the first line.
#define BEGIN \
	MOVQ AX, X4; \
	PXOR X4, X0; \
	LEAQ ·foldKeys(SB), DX; \
	MOVOU (DX), X4

// REDUCE leaves the checksum of the four in AX; it clobbers BX. The CRC32
// instruction divides what is left, 16 bytes, by the polynomial.
#define REDUCE \
	MOVOU  16(DX), X4; \
	FOLD(X0, X3, X5); \
	MOVOU  32(DX), X4; \
	FOLD(X1, X0, X6); \
	MOVOU  48(DX), X4; \
	FOLD(X2, X1, X7); \
	MOVQ   X2, BX; \
	PEXTRQ $1, X2, DX; \
	XORL   AX, AX; \
	CRC32Q BX, AX; \
	CRC32Q DX, AX

// SUMTAIL adds the CX bytes at SI, fewer than 64, to the checksum in AX. Its
// labels are those of the function that uses it.
#define SUMTAIL \
	SUBQ   $8, CX;   \
	JCS    four;     \
eights:             \
	CRC32Q (SI), AX; \
	ADDQ   $8, SI;   \
	SUBQ   $8, CX;   \
	JCC    eights;   \
four:               \
	TESTQ  $4, CX;   \
	JEQ    two;      \
	CRC32L (SI), AX; \
	ADDQ   $4, SI;   \
two:                \
	TESTQ  $2, CX;   \
	JEQ    one;      \
	CRC32W (SI), AX; \
	ADDQ   $2, SI;   \
one:                \
	TESTQ  $1, CX;   \
	JEQ    done;     \
	CRC32B (SI), AX; \
done:

// func copySumNT(dst, src unsafe.Pointer, n uintptr, crc uint32) uint32
TEXT ·copySumNT(SB), NOSPLIT, $0-36
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	MOVL crc+24(FP), AX
	SUBQ $64, CX
	JCS  tail
	LOADLINE(X0, X1, X2, X3)
	STORELINE(X0, X1, X2, X3)
	BEGIN
	JMP  next

line:
	LOADLINE(X10, X11, X12, X13)
	STORELINE(X10, X11, X12, X13)
	FOLDLINE

next:
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $64, CX
	JCC  line
	REDUCE

tail:
	ADDQ $64, CX
	SUMTAIL
	MOVL AX, ret+32(FP)
	RET

// func flushSumCLWB(p unsafe.Pointer, n uintptr, crc uint32) uint32
//
// Each 64 bytes are loaded before the line in which they begin is written back,
// so that a CPU whose CLWB evicts does not load them from memory again.
TEXT ·flushSumCLWB(SB), NOSPLIT, $0-28
	MOVQ p+0(FP), SI
	MOVQ n+8(FP), CX
	MOVL crc+16(FP), AX
	SUBQ $64, CX
	JCS  tail
	LOADLINE(X0, X1, X2, X3)
	CLWB (SI)
	BEGIN
	JMP  next

line:
	LOADLINE(X10, X11, X12, X13)
	CLWB (SI)
	FOLDLINE

next:
	ADDQ $64, SI
	SUBQ $64, CX
	JCC  line
	REDUCE

tail:
	ADDQ $64, CX
	JEQ  whole
	MOVQ SI, DI
	LEAQ -1(SI)(CX*1), R8
	SUMTAIL
	CLWB (DI)
	JMP  last

whole:
	LEAQ -64(SI), DI
	LEAQ -1(SI), R8

last: // the line of the last byte, unless what begins at DI is in it
	XORQ R8, DI
	CMPQ DI, $64
	JCS  end
	CLWB (R8)

end:
	MOVL AX, ret+24(FP)
	RET
