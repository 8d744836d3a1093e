package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Tweaks are encrypted in two ways: a whole batch at once, when a unit finds none, and afterwards
// a register of tweaks at a time, beside the blocks of a unit that finds low tweaks left: soon
// enough for the masks of the unit after the next. A ring in the scratch area holds the tweaks.
// Holes use up tweaks and make none: a run of holes empties the ring and then costs no AES.
const low = 3

// loop is the part common to all kernels: the walk over units.
type loop struct {
	width
	dir     direction
	first   reg.VecPhysical // of the registers of blocks
	tweaks  int             // size of the ring
	scratch int             // size of the scratch area
	names   string          // content of the vector registers

	constants func()          // loads the constants
	unit      func(more bool) // emits a unit with masks ready, the masks of the next unit, and more tweaks
	masks     func()          // makes the masks of the unit at hand
	refill    func()          // fills the ring
	isZero    func()          // tests first, and sets the zero flag
	isHole    func()          // tests the rest of a unit, too
	wipe      func()          // zeroes the registers left by the final VZEROALL
}

// kernel emits a function.
func (g *generator) kernel(l loop) {
	g.begin(l)
	g.Comment("Vector registers: " + l.names)
	l.constants()

	g.Label("unit")
	if l.dir == decrypt {
		g.load(l.width, at(src, 0), l.first)
		l.isZero()
		g.JZ(operand.LabelRef("zero"))
	}
	g.Label("data")
	g.TESTQ(left, left)
	g.JZ(operand.LabelRef("refill"))
	g.Comment("Are the masks those of this unit, or was the one before it a hole?")
	g.CMPQ(masksOf, unitLo)
	g.JNE(operand.LabelRef("masks"))
	g.Label("ready")
	g.CMPQ(left, operand.U8(low))
	g.JEQ(operand.LabelRef("low"))
	g.Label("enough")
	l.unit(false)
	g.Label("done")
	g.LEAQ(at(unitLo, 1), masksOf)
	g.Label("used")
	g.DECQ(left)
	g.ADDQ(operand.U8(blockSize), tweakAt)
	g.ANDQ(operand.I32(l.tweaks-1), tweakAt)
	g.Label("next")
	g.ADDQ(operand.U32(unitSize), src)
	g.ADDQ(operand.U32(unitSize), dst)
	g.INCQ(unitLo)
	g.DECQ(units)
	g.JNZ(operand.LabelRef("unit"))
	g.end(l)

	g.Label("low")
	g.Comment("Are all tweaks there that are needed?")
	g.CMPQ(units, operand.U8(low))
	g.JBE(operand.LabelRef("enough"))
	l.unit(true)
	g.ADDQ(operand.U8(l.bytes/blockSize), left)
	g.JMP(operand.LabelRef("done"))

	g.Label("refill")
	l.refill()
	g.MOVQ(operand.U32(l.tweaks/blockSize), left)
	g.XORQ(tweakAt, tweakAt)
	g.Label("masks")
	l.masks()
	g.JMP(operand.LabelRef("ready"))

	if l.dir == decrypt {
		g.zero(l)
	}
}

// begin emits the head of a kernel.
func (g *generator) begin(l loop) {
	name := fmt.Sprintf("%sUnits%s", l.dir.name, l.label)
	g.function(name, "func(dst, src *byte, units int, keys *byte, lo, hi uint64)",
		fmt.Sprintf("%s %s units (at least one) numbered from (hi, lo), which", name, l.dir.verb),
		fmt.Sprintf("do not pass (hi, 2^64-1). %s.", l.isa))
	local := g.AllocLocal(l.scratch + scratchAlign)
	g.Load(g.Param("dst"), dst)
	g.Load(g.Param("src"), src)
	g.Load(g.Param("units"), units)
	g.Load(g.Param("keys"), keys)
	g.Load(g.Param("lo"), unitLo)
	g.Load(g.Param("hi"), unitHi)
	g.LEAQ(local.Offset(scratchAlign-1), scratch)
	g.ANDQ(operand.I32(-scratchAlign), scratch)
	g.XORQ(left, left)
}

// zero emits the treatment of a unit whose first register is zero. If the whole unit is zero,
// zeros are written unless the output is zero already, and the unit's tweak, if there is one, is
// passed over.
func (g *generator) zero(l loop) {
	g.Label("zero")
	l.isHole()
	g.JNZ(operand.LabelRef("data"))
	g.CMPQ(src, dst)
	g.JEQ(operand.LabelRef("inPlace"))
	for off := 0; off < unitSize; off += l.bytes {
		g.store(l.width, l.first, at(dst, off))
	}
	g.Label("inPlace")
	g.TESTQ(left, left)
	g.JZ(operand.LabelRef("next"))
	g.JMP(operand.LabelRef("used"))
}

// end emits the wiping of the scratch area and the registers, and the return.
func (g *generator) end(l loop) {
	l.wipe()
	g.xor(l.width, l.first, l.first, l.first)
	for off := 0; off < l.scratch; off += l.bytes {
		g.store(l.width, l.first, at(scratch, off))
	}
	g.VZEROALL()
	g.RET()
}

// tweakNumbers sets to to the numbers of units from lo on, XORed with the first round key. lo may
// be any register; afterwards key holds the first round key.
func (g *generator) tweakNumbers(w width, lo reg.GPPhysical, to, key reg.VecPhysical) []step {
	x := to.AsX()
	steps := []step{
		func() { g.VMOVQ(lo, x) },
		func() { g.VPINSRQ(operand.U8(1), unitHi, x, x) },
	}
	switch w.bytes {
	case 32:
		steps = append(steps, func() { g.VINSERTI128(operand.U8(1), x, to, to) })
	case 64:
		steps = append(steps, func() { g.VSHUFI64X2(operand.U8(0), to, to, to) })
	}
	return append(steps, func() { g.repeat(w, at(keys, tweakKeys), key) })
}

// refill fills blocks with encrypted tweaks from the present unit on, and stores the tweaks in
// the ring at an offset of the scratch area.
func (g *generator) refill(w width, blocks []reg.VecPhysical, base, key reg.VecPhysical, ring int) {
	run(g.tweakNumbers(w, unitLo, base, key))
	for i, block := range blocks {
		g.VPADDQ(g.counters.Offset(w.bytes*i), base, block)
		g.xor(w, key, block, block)
	}
	g.ecb(w, encrypt, tweakKeys, key, blocks)
	for i, block := range blocks {
		g.store(w, block, at(scratch, ring+w.bytes*i))
	}
}

// moreTweaks encrypts the tweaks of a register's worth of units, from the first unit without a
// tweak.
func (g *generator) moreTweaks(w width, tweaks, key reg.VecPhysical, ring, size int) []step {
	number, slot := reg.RAX, reg.RBX
	steps := []step{func() { g.LEAQ(operand.Mem{Base: unitLo, Index: left, Scale: 1}, number) }}
	steps = append(steps, g.tweakNumbers(w, number, tweaks, key)...)
	steps = append(steps,
		func() { g.VPADDQ(g.counters, tweaks, tweaks) },
		func() { g.xor(w, key, tweaks, tweaks) },
	)
	for r := 1; r <= aesRounds; r++ {
		steps = append(steps,
			func() { g.repeat(w, at(keys, tweakKeys+16*r), key) },
			func() { g.aes(encrypt, r == aesRounds)(key, tweaks, tweaks) },
		)
	}
	return append(steps,
		func() {
			g.MOVQ(left, slot)
			g.SHLQ(operand.U8(4), slot)
			g.ADDQ(tweakAt, slot)
			g.ANDQ(operand.I32(size-1), slot)
			g.store(w, tweaks, operand.Mem{Base: scratch, Index: slot, Scale: 1, Disp: ring})
		},
	)
}

// tweakOf loads the tweak of the unit at hand, or of the next one.
func (g *generator) tweakOf(w width, next bool, to reg.VecPhysical, ring, size int) step {
	return func() {
		slot := tweakAt
		if next {
			slot = reg.RBX
			g.LEAQ(at(tweakAt, blockSize), slot)
			g.ANDQ(operand.I32(size-1), slot)
		}
		g.repeat(w, operand.Mem{Base: scratch, Index: slot, Scale: 1, Disp: ring}, to)
	}
}

// merge spreads the shorter of two lists evenly in the longer one.
func merge(a, b []step) []step {
	if len(a) < len(b) {
		a, b = b, a
	}
	merged := make([]step, 0, len(a)+len(b))
	for i, s := range a {
		merged = append(merged, s)
		merged = append(merged, b[len(b)*i/len(a):len(b)*(i+1)/len(a)]...)
	}
	return merged
}
