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

// timesBits multiplies from by α^k into to, with k up to 7 and different for each 16 bytes:
// register i of a width takes the powers after those of register i - 1, from α^0 on. t and u are
// temporaries.
func (g *generator) timesBits(w width, i int, from, to, t, u reg.VecPhysical) []step {
	if w.bytes == 16 && i == 0 {
		return []step{func() { g.VMOVDQA(from, to) }}
	}
	steps := []step{
		func() { g.VPSLLVQ(g.left.Offset(w.bytes*i), from, to) },
		func() { g.VPSRLVQ(g.right.Offset(w.bytes*i), from, t) },
	}
	if w.bytes == 16 { // AVX has no shift counts for each part, but here k is i
		steps = []step{
			func() { g.VPSLLQ(operand.U8(i), from, to) },
			func() { g.VPSRLQ(operand.U8(64-i), from, t) },
		}
	}
	steps = append(steps,
		func() { g.VPSLLDQ(operand.U8(8), t, u) },
		func() { g.VPCLMULQDQ(operand.U8(0x01), g.poly, t, t) }, // t's upper half
	)
	if w.bytes == 64 {
		return append(steps, func() { g.xor3(t, u, to) })
	}
	return append(steps,
		func() { g.VPXOR(u, to, to) },
		func() { g.VPXOR(t, to, to) },
	)
}

// timesBytes multiplies from by α^8n, n up to 7, and adds plus, into to; t is a
// temporary.
func (g *generator) timesBytes(w width, n int, from reg.VecPhysical, plus operand.Op, to, t reg.VecPhysical) []step {
	steps := []step{
		func() { g.VPSRLDQ(operand.U8(16-n), from, t) },
		func() { g.VPSLLDQ(operand.U8(n), from, to) },
		func() { g.VPCLMULQDQ(operand.U8(0x00), g.poly, t, t) },
	}
	if w.bytes == 64 {
		return append(steps, func() { g.xor3(plus, t, to) })
	}
	return append(steps,
		func() { g.VPXOR(plus, to, to) },
		func() { g.VPXOR(t, to, to) },
	)
}

// xor3 sets to ^= a ^ b, in registers of 512 bits.
func (g *generator) xor3(a operand.Op, b, to reg.VecPhysical) {
	g.VPTERNLOGQ(operand.U8(0x96), a, b, to)
}

// run emits steps one after the other.
func run(steps []step) {
	for _, s := range steps {
		s()
	}
}
