package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// short emits a function for a last unit of less than 512 bytes: a block at a time, since only
// the standards' vectors have such units, the format has none.
//
//	X0 block, X1 mask, X2 round key, X3-X4 temporaries; CX counts blocks
func (g *generator) short(dir direction) {
	name := dir.name + "Short"
	g.function(name, "func(dst, src *byte, blocks int, keys *byte, lo, hi uint64)",
		fmt.Sprintf("%s %s the first blocks (at least one) of unit (hi, lo).", name, dir.verb),
		"Needs AES, PCLMULQDQ, AVX.")
	block, mask, key := reg.X0, reg.X1, reg.X2
	blocks := units
	g.Load(g.Param("dst"), dst)
	g.Load(g.Param("src"), src)
	g.Load(g.Param("blocks"), blocks)
	g.Load(g.Param("keys"), keys)
	g.Load(g.Param("lo"), unitLo)
	g.Load(g.Param("hi"), unitHi)

	g.Comment("The tweak")
	g.VMOVQ(unitLo, mask)
	g.VPINSRQ(operand.U8(1), unitHi, mask, mask)
	g.VPXOR(at(keys, tweakKeys), mask, mask)
	g.ecb(w128, encrypt, tweakKeys, key, []reg.VecPhysical{mask})

	g.Label("block")
	g.VPXOR(at(src, 0), mask, block)
	g.VPXOR(at(keys, dir.keys), block, block)
	g.ecb(w128, dir, dir.keys, key, []reg.VecPhysical{block})
	g.VPXOR(mask, block, block)
	g.VMOVDQU(block, at(dst, 0))
	g.VMOVDQU(mask, block)
	run(g.timesBits(w128, 1, block, mask, reg.X3, reg.X4))
	g.ADDQ(operand.U8(blockSize), src)
	g.ADDQ(operand.U8(blockSize), dst)
	g.DECQ(blocks)
	g.JNZ(operand.LabelRef("block"))
	g.VZEROALL()
	g.RET()
}
