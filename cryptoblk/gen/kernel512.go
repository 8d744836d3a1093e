package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// kernel512 emits a function for whole units on 32 registers of 512 bits. A unit
// is eight of them, so that everything stays in registers:
//
//	0-7   blocks; temporaries while the masks are made
//	8-15  masks
//	16-30 round keys
//	31    0x87
type kernel512 struct {
	*generator
	dir    direction
	blocks []reg.VecPhysical
	masks  []reg.VecPhysical
	keys   []reg.VecPhysical
	poly   reg.VecPhysical
}

// batch512 is the size in bytes of a batch of tweaks: sixteen, half of what eight
// registers hold, so that a short request does not pay for too many.
const batch512 = 16 * blockSize

func newKernel512(g *generator, dir direction) *kernel512 {
	r := w512.regs
	return &kernel512{generator: g, dir: dir, blocks: r[:8], masks: r[8:16], keys: r[16:31], poly: r[31]}
}

func (k *kernel512) emit() {
	k.begin(w512, k.dir, batch512, batch512)
	k.repeat(w512, k.generator.poly, k.poly)
	for r, key := range k.keys {
		k.repeat(w512, at(keys, k.dir.keys+16*r), key)
	}

	k.Label("unit")
	if k.dir == decrypt {
		k.load(w512, at(src, 0), k.blocks[0])
		k.VPTESTMQ(k.blocks[0], k.blocks[0], reg.K1)
		k.KORTESTW(reg.K1, reg.K1)
		k.JZ(operand.LabelRef("zero"))
		k.Label("data")
	}
	k.CMPQ(tweak, operand.U32(batch512))
	k.JEQ(operand.LabelRef("refill"))
	k.Label("masks")
	k.makeMasks()
	k.unit()
	k.ADDQ(operand.U32(unitSize), src)
	k.ADDQ(operand.U32(unitSize), dst)

	k.Label("next")
	k.ADDQ(operand.U8(blockSize), tweak)
	k.Label("skipped")
	k.INCQ(unitLo)
	k.DECQ(units)
	k.JNZ(operand.LabelRef("unit"))
	k.end()

	k.Label("refill")
	k.encryptTweaks(w512, k.blocks[:batch512/64], k.masks[0])
	k.JMP(operand.LabelRef("masks"))
	if k.dir == decrypt {
		k.zero()
	}
}

// makeMasks emits the masks of a unit: tweak · α^0 to α^31. The first two
// registers come from the tweak by bits, the others from these by bytes, so that
// none waits for a long chain.
func (k *kernel512) makeMasks() {
	k.Comment("The masks of the unit: tweak · α^0 to α^31")
	first := k.blocks[7]
	k.repeat(w512, operand.Mem{Base: scratch, Index: tweak, Scale: 1}, first)
	k.timesBits(w512, 0, first, k.masks[0], k.blocks[0], k.blocks[1], k.poly)
	k.timesBits(w512, 1, first, k.masks[1], k.blocks[2], k.blocks[3], k.poly)
	for i := 2; i < len(k.masks); i++ {
		k.timesBytes(w512, i/2, k.masks[i%2], k.masks[i], k.blocks[i%4], k.poly)
	}
}

// unit emits AES between two XORs, for a whole unit.
func (k *kernel512) unit() {
	for i, block := range k.blocks {
		k.load(w512, at(src, 64*i), block)
		k.VPTERNLOGQ(operand.U8(0x96), k.masks[i], k.keys[0], block)
	}
	for r, key := range k.keys[1:] {
		k.round(k.dir, r == aesRounds-1, key, k.blocks)
	}
	for i, block := range k.blocks {
		k.xor(w512, k.masks[i], block, block)
		k.store(w512, block, at(dst, 64*i))
	}
}

// zero emits what happens to a unit that begins with zeros.
func (k *kernel512) zero() {
	k.Label("zero")
	for off := 64; off < unitSize; off += 64 {
		k.VPORQ(at(src, off), k.blocks[0], k.blocks[0])
	}
	k.VPTESTMQ(k.blocks[0], k.blocks[0], reg.K1)
	k.KORTESTW(reg.K1, reg.K1)
	k.JNZ(operand.LabelRef("data"))
	k.skip(w512, k.blocks[0], batch512)
}

// end wipes the scratch area and the registers, and returns. VZEROALL does not
// reach registers 16 to 31.
func (k *kernel512) end() {
	k.VPXORQ(k.blocks[0], k.blocks[0], k.blocks[0])
	for off := 0; off < batch512; off += 64 {
		k.store(w512, k.blocks[0], at(scratch, off))
	}
	for _, key := range k.keys {
		k.VPXORQ(key, key, key)
	}
	k.VZEROALL()
	k.RET()
}
