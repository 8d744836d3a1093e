package main

import (
	"github.com/mmcloughlin/avo/reg"
)

// evex emits a kernel on 32 registers of 512 bits. A unit is eight registers, so masks stay in
// registers:
//
//	0-7   blocks
//	8-15  masks, with the last round key in them
//	16-23 masks of the next unit
//	24    tweaks under way
//	25    round key
//	26    first round key ^ last round key
//	27    round key of tweaks
//	28-31 temporaries
type evex struct {
	*generator
	dir           direction
	blocks        []reg.VecPhysical
	masks, next   []reg.VecPhysical
	more, moreKey reg.VecPhysical
	key, ends     reg.VecPhysical
	tmp           []reg.VecPhysical
}

// The scratch area of 512-bit kernels holds the ring of tweaks and the last round key. The ring
// is half as long as eight registers of tweaks, so a short request does not pay for too many
// tweaks.
const (
	ring512    = 0
	tweaks512  = 16 * blockSize
	last512    = tweaks512
	scratch512 = last512 + 64
)

func (g *generator) evex(dir direction) {
	r := w512.regs
	k := &evex{
		generator: g, dir: dir,
		blocks: r[:8], masks: r[8:16], next: r[16:24],
		more: r[24], key: r[25], ends: r[26], moreKey: r[27], tmp: r[28:32],
	}
	first := k.blocks[0]
	isZero := func() {
		k.VPTESTMQ(first, first, reg.K1)
		k.KORTESTW(reg.K1, reg.K1)
	}
	g.kernel(loop{
		width: w512, dir: dir, first: first, tweaks: tweaks512, scratch: scratch512,
		names: "0-7 blocks, 8-15 masks, 16-23 masks of the next unit, 24 tweaks under way, " +
			"25 round key, 26 first ^ last round key, 27 round key of tweaks, 28-31 temporaries",
		constants: k.constants,
		unit:      k.unit,
		masks:     func() { run(k.unitMasks(false, k.masks)) },
		refill:    func() { k.refill(w512, k.blocks[:tweaks512/64], k.tmp[0], k.key, ring512) },
		isZero:    isZero,
		isHole: func() {
			for off := 64; off < unitSize; off += 64 {
				k.VPORQ(at(src, off), first, first)
			}
			isZero()
		},
		wipe: func() {
			for _, r := range w512.regs[16:] {
				k.VPXORQ(r, r, r)
			}
		},
	})
}

func (k *evex) constants() {
	last := k.tmp[0]
	k.repeat(w512, at(keys, k.dir.keys+16*aesRounds), last)
	k.store(w512, last, at(scratch, last512))
	k.repeat(w512, at(keys, k.dir.keys), k.ends)
	k.xor(w512, last, k.ends, k.ends)
}

// unit emits a unit, and beside the unit the masks of the next one.
func (k *evex) unit(more bool) {
	beside := k.unitMasks(true, k.next)
	if more {
		beside = merge(beside, k.moreTweaks(w512, k.more, k.moreKey, ring512, tweaks512))
	}
	for i, block := range k.blocks {
		k.load(w512, at(src, 64*i), block)
		k.xor3(k.masks[i], k.ends, block)
	}
	k.rounds(w512, k.dir, k.dir.keys, k.key, k.blocks, beside)
	for i, block := range k.blocks {
		k.aes(k.dir, true)(k.masks[i], block, block)
		k.store(w512, block, at(dst, 64*i))
	}
	for i, mask := range k.next {
		k.VMOVDQA64(mask, k.masks[i])
	}
}

// unitMasks makes the masks of the present unit or of the next one, tweak · α^0 to α^31. Eight
// powers come from the tweak by bits, the others from the eight by bytes, so no power waits for a
// long chain.
func (k *evex) unitMasks(next bool, to []reg.VecPhysical) []step {
	tweak, t, last := k.tmp[3], k.tmp[2], at(scratch, last512)
	steps := []step{k.tweakOf(w512, next, tweak, ring512, tweaks512)}
	for i := range 2 {
		steps = append(steps, k.timesBits(w512, i, tweak, k.tmp[i], to[i], t)...)
		steps = append(steps, func() { k.xor(w512, last, k.tmp[i], to[i]) })
	}
	for i := 2; i < len(to); i++ {
		steps = append(steps, k.timesBytes(w512, i/2, k.tmp[i%2], last, to[i], t)...)
	}
	return steps
}
