package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	unitSize  = 512
	inFlight  = 8 // registers of blocks
	blockSize = 16
)

// kernel emits a function for whole units on 16 registers of 128 or 256 bits:
//
//	0-7   blocks
//	8     round key
//	9     0x87
//	10-12 temporaries
//	13    first round key
//
// The masks do not fit in registers beside the blocks and lie in the scratch
// area; they advance from one group to the next there.
type kernel struct {
	*generator
	width
	dir    direction
	blocks []reg.VecPhysical
	key    reg.VecPhysical
	poly   reg.VecPhysical
	tmp    []reg.VecPhysical
	key0   reg.VecPhysical
}

func newKernel(g *generator, w width, dir direction) *kernel {
	return &kernel{
		generator: g, width: w, dir: dir,
		blocks: w.regs[:inFlight], key: w.regs[8], poly: w.regs[9], tmp: w.regs[10:13], key0: w.regs[13],
	}
}

// batch is the size in bytes of a batch of tweaks, which is that of the masks too.
func (k *kernel) batch() int { return inFlight * k.bytes }

func (k *kernel) emit() {
	k.begin(k.width, k.dir, 2*k.batch(), k.batch())
	k.repeat(k.width, k.generator.poly, k.poly)
	k.repeat(k.width, at(keys, k.dir.keys), k.key0)

	k.Label("unit")
	if k.dir == decrypt {
		k.load(k.width, at(src, 0), k.blocks[0])
		k.VPTEST(k.blocks[0], k.blocks[0])
		k.JZ(operand.LabelRef("zero"))
		k.Label("data")
	}
	k.CMPQ(tweak, operand.U32(k.batch()))
	k.JEQ(operand.LabelRef("refill"))
	k.Label("masks")
	k.masks()
	k.MOVQ(operand.U32(unitSize/k.batch()), groups)

	k.Label("group")
	k.group()
	k.ADDQ(operand.U32(k.batch()), src)
	k.ADDQ(operand.U32(k.batch()), dst)
	k.DECQ(groups)
	k.JZ(operand.LabelRef("next"))
	k.advance()
	k.JMP(operand.LabelRef("group"))

	k.Label("next")
	k.ADDQ(operand.U8(blockSize), tweak)
	k.Label("skipped")
	k.INCQ(unitLo)
	k.DECQ(units)
	k.JNZ(operand.LabelRef("unit"))
	k.end()

	k.refill()
	if k.dir == decrypt {
		k.zero()
	}
}

// begin emits the head of a kernel with a scratch area of scratchSize bytes, in
// which the batch of tweaks has tweaks bytes.
func (g *generator) begin(w width, dir direction, scratchSize, tweaks int) {
	name := fmt.Sprintf("%sUnits%s", dir.name, w.label)
	g.function(name, "func(dst, src *byte, units int, keys *byte, lo, hi uint64)",
		fmt.Sprintf("%s %s units (at least one) numbered from (hi, lo), which", name, dir.verb),
		fmt.Sprintf("do not pass (hi, 2^64-1). %s.", w.isa))
	const align = 64
	local := g.AllocLocal(scratchSize + align)
	g.Load(g.Param("dst"), dst)
	g.Load(g.Param("src"), src)
	g.Load(g.Param("units"), units)
	g.Load(g.Param("keys"), keys)
	g.Load(g.Param("lo"), unitLo)
	g.Load(g.Param("hi"), unitHi)
	g.LEAQ(local.Offset(align-1), scratch)
	g.ANDQ(operand.I32(-align), scratch)
	g.Comment("No tweak is encrypted yet")
	g.MOVQ(operand.U32(tweaks), tweak)
}

// masks emits the masks of a unit's first group.
func (k *kernel) masks() {
	k.Comment("The masks of the first group: tweak · α^0, α^1 …")
	first := k.tmp[2]
	k.repeat(k.width, operand.Mem{Base: scratch, Index: tweak, Scale: 1}, first)
	perAlpha8 := 8 * blockSize / k.bytes // registers that α^0 to α^7 fill
	for i := range inFlight {
		mask := k.blocks[i]
		if i < perAlpha8 {
			k.timesBits(k.width, i, first, mask, k.tmp[0], k.tmp[1], k.poly)
		} else {
			k.timesBytes(k.width, 1, k.blocks[i-perAlpha8], mask, k.tmp[0], k.poly)
		}
		k.store(k.width, mask, k.mask(i))
	}
}

// mask is where the scratch area has mask i of the group.
func (k *kernel) mask(i int) operand.Mem { return at(scratch, k.batch()+k.bytes*i) }

// group emits AES between two XORs, for eight registers.
func (k *kernel) group() {
	for i, block := range k.blocks {
		k.xor(k.width, k.mask(i), k.key0, block)
		k.xor(k.width, at(src, k.bytes*i), block, block)
	}
	k.rounds(k.width, k.dir, at(keys, k.dir.keys), k.key, k.blocks)
	for i, block := range k.blocks {
		k.xor(k.width, k.mask(i), block, block)
		k.store(k.width, block, at(dst, k.bytes*i))
	}
}

// advance emits the masks' step to the next group.
func (k *kernel) advance() {
	k.Comment("The next group's masks")
	for i := range inFlight {
		k.load(k.width, k.mask(i), k.tmp[0])
		k.timesBytes(k.width, k.batch()/blockSize/8, k.tmp[0], k.tmp[1], k.tmp[2], k.poly)
		k.store(k.width, k.tmp[1], k.mask(i))
	}
}

// refill emits the encryption of the next batch of tweaks.
func (k *kernel) refill() {
	k.Label("refill")
	k.encryptTweaks(k.width, k.blocks, k.key)
	k.JMP(operand.LabelRef("masks"))
}

// encryptTweaks encrypts the tweaks from the unit at hand on into the scratch
// area, as many as blocks can hold.
func (g *generator) encryptTweaks(w width, blocks []reg.VecPhysical, key reg.VecPhysical) {
	base := w.regs[10]
	g.VMOVQ(unitLo, base.AsX())
	g.VPINSRQ(operand.U8(1), unitHi, base.AsX(), base.AsX())
	switch w.bytes {
	case 32:
		g.VINSERTI128(operand.U8(1), base.AsX(), base, base)
	case 64:
		g.VSHUFI64X2(operand.U8(0), base, base, base)
	}
	g.repeat(w, at(keys, tweakKeys), key)
	for i, block := range blocks {
		g.VPADDQ(g.counters.Offset(w.bytes*i), base, block)
		g.xor(w, key, block, block)
	}
	g.rounds(w, encrypt, at(keys, tweakKeys), key, blocks)
	for i, block := range blocks {
		g.store(w, block, at(scratch, w.bytes*i))
	}
	g.XORQ(tweak, tweak)
}

// zero emits what happens to a unit that begins with zeros.
func (k *kernel) zero() {
	k.Label("zero")
	for off := k.bytes; off < unitSize; off += k.bytes {
		k.VPOR(at(src, off), k.blocks[0], k.blocks[0])
	}
	k.VPTEST(k.blocks[0], k.blocks[0])
	k.JNZ(operand.LabelRef("data"))
	k.skip(k.width, k.blocks[0], k.batch())
}

// skip emits a hole: zeros written, unless they stand there already, and a tweak
// of the batch, if one is left, passed over.
func (g *generator) skip(w width, zero reg.VecPhysical, tweaks int) {
	g.Comment("A hole")
	g.CMPQ(src, dst)
	g.JEQ(operand.LabelRef("inPlace"))
	for off := 0; off < unitSize; off += w.bytes {
		g.store(w, zero, at(dst, off))
	}
	g.Label("inPlace")
	g.ADDQ(operand.U32(unitSize), src)
	g.ADDQ(operand.U32(unitSize), dst)
	g.CMPQ(tweak, operand.U32(tweaks))
	g.JEQ(operand.LabelRef("skipped"))
	g.JMP(operand.LabelRef("next"))
}

// end wipes the scratch area and the registers, and returns.
func (k *kernel) end() {
	k.VPXOR(k.blocks[0], k.blocks[0], k.blocks[0])
	for off := 0; off < 2*k.batch(); off += k.bytes {
		k.store(k.width, k.blocks[0], at(scratch, off))
	}
	k.VZEROALL()
	k.RET()
}
