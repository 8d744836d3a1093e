package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// In each 16 bytes, lo and hi are the 64-bit halves of a polynomial over GF(2),
// lo with the lower powers of α. With x^128 = x^7 + x^2 + x + 1 = 0x87,
//
//	α^k · (hi, lo) = (hi<<k | lo>>(64-k), lo<<k) ^ 0x87 · (hi>>(64-k))
//
// for k up to 57, since the product then fits 64 bits.

// timesBits multiplies from by α^k into to, k up to 7 and different for each 16
// bytes: register i of a width takes the powers that follow those of register
// i - 1, from α^0 on. t and u are temporaries; poly holds 0x87.
func (g *generator) timesBits(w width, i int, from, to, t, u, poly reg.VecPhysical) {
	if w.bytes == 16 { // AVX has no shift counts for each part; here k is i
		if i == 0 {
			g.VMOVDQA(from, to)
			return
		}
		g.VPSLLQ(operand.U8(i), from, to)
		g.VPSRLQ(operand.U8(64-i), from, t)
	} else {
		g.VPSLLVQ(g.left.Offset(w.bytes*i), from, to)
		g.VPSRLVQ(g.right.Offset(w.bytes*i), from, t)
	}
	g.VPSLLDQ(operand.U8(8), t, u)
	g.VPCLMULQDQ(operand.U8(0x01), poly, t, t) // t's upper half
	if w.bytes == 64 {
		g.VPTERNLOGQ(operand.U8(0x96), t, u, to) // all three XORed
		return
	}
	g.VPXOR(u, to, to)
	g.VPXOR(t, to, to)
}

// timesBytes multiplies from by α^8n into to, n up to 7; t is a temporary.
func (g *generator) timesBytes(w width, n int, from, to, t, poly reg.VecPhysical) {
	g.VPSRLDQ(operand.U8(16-n), from, t)
	g.VPCLMULQDQ(operand.U8(0x00), poly, t, t)
	g.VPSLLDQ(operand.U8(n), from, to)
	g.xor(w, t, to, to)
}
