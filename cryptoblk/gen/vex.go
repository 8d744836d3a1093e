package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// vex emits a kernel on 16 registers of 128 or 256 bits:
//
//	0-7   blocks
//	8     round key
//	9     round key of tweaks
//	10-12 temporaries
//	13    first round key ^ last round key
//	14    tweaks under way
//	15    the tweak that masks are made of
//
// The masks find no room beside the blocks and lie in the scratch area: the masks of the present
// group in one set and the masks of the next group in the other. Like all masks, they contain the
// last round key.
type vex struct {
	*generator
	width
	dir     direction
	blocks  []reg.VecPhysical
	key     reg.VecPhysical
	moreKey reg.VecPhysical
	tmp     []reg.VecPhysical
	ends    reg.VecPhysical
	more    reg.VecPhysical
	tweak   reg.VecPhysical
}

func (g *generator) vex(w width, dir direction) {
	r := w.regs
	k := &vex{
		generator: g, width: w, dir: dir,
		blocks: r[:inFlight], key: r[8], moreKey: r[9], tmp: r[10:13], ends: r[13], more: r[14], tweak: r[15],
	}
	first := k.blocks[0]
	g.kernel(loop{
		width: w, dir: dir, first: first, tweaks: k.group(), scratch: k.scratchSize(),
		names: "0-7 blocks, 8 round key, 9 round key of tweaks, 10-12 temporaries, " +
			"13 first ^ last round key, 14 tweaks under way, 15 tweak of the masks",
		constants: k.constants,
		unit:      k.unit,
		masks:     func() { run(k.firstMasks(false)) },
		refill:    func() { k.refill(w, k.blocks, k.tmp[0], k.key, k.ring()) },
		isZero:    func() { k.VPTEST(first, first) },
		isHole: func() {
			for off := k.bytes; off < unitSize; off += k.bytes {
				k.VPOR(at(src, off), first, first)
			}
			k.VPTEST(first, first)
		},
		wipe: func() {},
	})
}

// group is how many bytes are in flight. The ring of tweaks is as large, and so is
// a set of masks.
func (k *vex) group() int { return inFlight * k.bytes }

// stride is the step from a group to the next: α^8n for so many blocks.
func (k *vex) stride() int { return k.group() / blockSize / 8 }

// The scratch area holds two sets of masks, the ring of tweaks, and for each n up to the stride
// the constants that keep the last round key in a mask multiplied by α^8n: the last round key
// times α^8n, and the last round key itself.

func (k *vex) mask(set, i int) operand.Mem { return at(scratch, set*k.group()+k.bytes*i) }
func (k *vex) ring() int                   { return 2 * k.group() }
func (k *vex) plus(n int) operand.Mem      { return at(scratch, 3*k.group()+k.bytes*(n-1)) }
func (k *vex) scratchSize() int            { return 3*k.group() + k.bytes*k.stride() }

func (k *vex) constants() {
	last, sum := k.tmp[0], k.tmp[1]
	k.lastKey(last)
	k.repeat(k.width, at(keys, k.dir.keys), k.ends)
	k.xor(k.width, last, k.ends, k.ends)
	for n := 1; n <= k.stride(); n++ {
		run(k.timesBytes(k.width, n, last, last, sum, k.tmp[2]))
		k.store(k.width, sum, k.plus(n))
	}
}

func (k *vex) lastKey(to reg.VecPhysical) {
	k.repeat(k.width, at(keys, k.dir.keys+16*aesRounds), to)
}

// unit emits a unit group by group: beside each group the masks of the next one, beside the last
// group those of the next unit.
func (k *vex) unit(more bool) {
	var tweaks []step
	if more {
		tweaks = k.moreTweaks(k.width, k.more, k.moreKey, k.ring(), k.group())
	}
	n := unitSize / k.group()
	for g := range n {
		set := g % 2
		for i, block := range k.blocks {
			k.xor(k.width, k.mask(set, i), k.ends, block)
			k.xor(k.width, at(src, g*k.group()+k.bytes*i), block, block)
		}
		masks := k.nextMasks(set)
		if g == n-1 {
			masks = k.firstMasks(true)
		}
		part := tweaks[len(tweaks)*g/n : len(tweaks)*(g+1)/n]
		k.rounds(k.width, k.dir, k.dir.keys, k.key, k.blocks, merge(masks, part))
		for i, block := range k.blocks {
			k.aes(k.dir, true)(k.mask(set, i), block, block)
			k.store(k.width, block, at(dst, g*k.group()+k.bytes*i))
		}
	}
}

// firstMasks makes the masks of the first group of the present unit or of the next one, tweak ·
// α^0, α^1 …: α^0 to α^7 by bits, the others from these by a byte.
func (k *vex) firstMasks(next bool) []step {
	steps := []step{k.tweakOf(k.width, next, k.tweak, k.ring(), k.group())}
	byBits := 8 * blockSize / k.bytes
	for i := range byBits {
		steps = append(steps, k.timesBits(k.width, i, k.tweak, k.tmp[0], k.tmp[1], k.tmp[2])...)
		steps = append(steps,
			func() { k.lastKey(k.tmp[1]) },
			func() { k.xor(k.width, k.tmp[1], k.tmp[0], k.tmp[0]) },
			func() { k.store(k.width, k.tmp[0], k.mask(0, i)) },
		)
	}
	for i := byBits; i < inFlight; i++ {
		steps = append(steps, k.multiply(k.mask(0, i-byBits), 1, k.mask(0, i))...)
	}
	return steps
}

// nextMasks makes the masks of the group after set's.
func (k *vex) nextMasks(set int) []step {
	var steps []step
	for i := range inFlight {
		steps = append(steps, k.multiply(k.mask(set, i), k.stride(), k.mask(1-set, i))...)
	}
	return steps
}

// multiply makes the mask α^8n times another mask.
func (k *vex) multiply(from operand.Mem, n int, to operand.Mem) []step {
	steps := []step{func() { k.load(k.width, from, k.tmp[0]) }}
	steps = append(steps, k.timesBytes(k.width, n, k.tmp[0], k.plus(n), k.tmp[1], k.tmp[2])...)
	return append(steps, func() { k.store(k.width, k.tmp[1], to) })
}
