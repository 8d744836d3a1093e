//go:build !purego

#include "textflag.h"

// CX passes left, DX round keys; registers 0-7 blocks, 8 round key. Each pass
// begins anew from the first round key, so that passes overlap in the CPU as
// the groups of a kernel do; in a pass, no AES instruction waits for its neighbour.

#define ROUND(op, K, R0, R1, R2, R3, R4, R5, R6, R7) \
	op K, R0, R0; op K, R1, R1; op K, R2, R2; op K, R3, R3; \
	op K, R4, R4; op K, R5, R5; op K, R6, R6; op K, R7, R7

#define START(mov, K, R0, R1, R2, R3, R4, R5, R6, R7) \
	mov K, R0; mov K, R1; mov K, R2; mov K, R3; \
	mov K, R4; mov K, R5; mov K, R6; mov K, R7

#define PASS(load, mov, K, R0, R1, R2, R3, R4, R5, R6, R7) \
	load 0(DX), K; START(mov, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 16(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 32(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 48(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 64(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 80(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 96(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 112(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 128(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 144(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 160(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 176(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 192(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 208(DX), K; ROUND(VAESENC, K, R0, R1, R2, R3, R4, R5, R6, R7); \
	load 224(DX), K; ROUND(VAESENCLAST, K, R0, R1, R2, R3, R4, R5, R6, R7)

// func AESNI(n int, keys *[240]byte)
TEXT ·AESNI(SB), NOSPLIT, $0-16
	MOVQ n+0(FP), CX
	MOVQ keys+8(FP), DX
pass:
	PASS(VMOVDQU, VMOVDQA, X8, X0, X1, X2, X3, X4, X5, X6, X7)
	DECQ CX
	JNZ  pass
	VZEROALL
	RET

// func VAES(n int, keys *[240]byte)
TEXT ·VAES(SB), NOSPLIT, $0-16
	MOVQ n+0(FP), CX
	MOVQ keys+8(FP), DX
pass:
	PASS(VBROADCASTI128, VMOVDQA, Y8, Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7)
	DECQ CX
	JNZ  pass
	VZEROALL
	RET

// func VAES512(n int, keys *[240]byte)
TEXT ·VAES512(SB), NOSPLIT, $0-16
	MOVQ n+0(FP), CX
	MOVQ keys+8(FP), DX
pass:
	PASS(VBROADCASTI32X4, VMOVDQA64, Z8, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	DECQ CX
	JNZ  pass
	VZEROALL
	RET
