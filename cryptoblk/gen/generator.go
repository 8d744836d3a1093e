package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// General registers, the same in all functions; see the package comment.
var (
	dst     = reg.RDI
	src     = reg.RSI
	units   = reg.RCX
	keys    = reg.RDX
	unitLo  = reg.R8
	unitHi  = reg.R9
	scratch = reg.R10
	left    = reg.R11
	masksOf = reg.R12
	tweakAt = reg.R13
)

// width is a size of vector registers.
type width struct {
	bytes int
	label string // ends the names of functions
	isa   string
	regs  []reg.VecPhysical
}

var (
	w128 = width{16, "AESNI", "AES-NI, 128-bit registers", []reg.VecPhysical{
		reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7,
		reg.X8, reg.X9, reg.X10, reg.X11, reg.X12, reg.X13, reg.X14, reg.X15,
	}}
	w256 = width{32, "VAES", "VAES, 256-bit registers", []reg.VecPhysical{
		reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7,
		reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
	}}
	w512 = width{64, "VAES512", "VAES, 512-bit registers", []reg.VecPhysical{
		reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7,
		reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23,
		reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
	}}
)

const (
	unitSize     = 512
	blockSize    = 16
	inFlight     = 8 // registers of blocks
	scratchAlign = 64
)

// generator is an avo context with the vocabulary of this program.
type generator struct {
	*build.Context
	poly     operand.Mem // 0x87: x^128 in GF(2^128)
	counters operand.Mem // 0, 1, 2 …: 128-bit integers
	left     operand.Mem // 0, 0, 1, 1, 2, 2 …: 64-bit shift counts
	right    operand.Mem // 64 less each count of left
}

// tables defines the constants loaded by the functions.
func (g *generator) tables() {
	g.poly = g.table("poly", 0x87, 0, 0x87, 0, 0x87, 0, 0x87, 0)
	var counters, left, right []uint64
	for i := range uint64(16) {
		counters = append(counters, i, 0)
	}
	for i := range uint64(8) {
		left = append(left, i, i)
		right = append(right, 64-i, 64-i)
	}
	g.counters = g.table("counters", counters...)
	g.left = g.table("left", left...)
	g.right = g.table("right", right...)
}

func (g *generator) table(name string, words ...uint64) operand.Mem {
	mem := g.StaticGlobal(name)
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for i, word := range words {
		g.AddDatum(8*i, operand.U64(word))
	}
	return mem
}

// function begins a function of the given Go signature.
func (g *generator) function(name, signature string, doc ...string) {
	g.Function(name)
	g.Doc(doc...)
	g.Pragma("noescape")
	g.SignatureExpr(signature)
}

// load loads w bytes at mem.
func (g *generator) load(w width, mem operand.Mem, to reg.VecPhysical) {
	if w.bytes == 64 {
		g.VMOVDQU64(mem, to)
	} else {
		g.VMOVDQU(mem, to)
	}
}

// store is the inverse of load.
func (g *generator) store(w width, from reg.VecPhysical, mem operand.Mem) {
	if w.bytes == 64 {
		g.VMOVDQU64(from, mem)
	} else {
		g.VMOVDQU(from, mem)
	}
}

// repeat loads the 16 bytes at mem into every part of a register.
func (g *generator) repeat(w width, mem operand.Mem, to reg.VecPhysical) {
	switch w.bytes {
	case 16:
		g.VMOVDQU(mem, to)
	case 32:
		g.VBROADCASTI128(mem, to)
	case 64:
		g.VBROADCASTI32X4(mem, to)
	}
}

// xor sets to = a ^ b.
func (g *generator) xor(w width, a operand.Op, b, to reg.VecPhysical) {
	if w.bytes == 64 {
		g.VPXORQ(a, b, to)
	} else {
		g.VPXOR(a, b, to)
	}
}

// aes is the instruction for a round of AES, the last one if last.
func (g *generator) aes(dir direction, last bool) func(key, from, to operand.Op) {
	switch {
	case dir == encrypt && !last:
		return g.VAESENC
	case dir == encrypt:
		return g.VAESENCLAST
	case !last:
		return g.VAESDEC
	default:
		return g.VAESDECLAST
	}
}

// step emits an instruction or a few.
type step func()

// rounds emits AES without its first and its last key, with other work, beside, spread evenly
// among the rounds: instructions waiting in a heap would take some of the execution units needed
// by AES. key is a temporary.
func (g *generator) rounds(w width, dir direction, schedule int, key reg.VecPhysical, blocks []reg.VecPhysical, beside []step) {
	total, done, emitted := (aesRounds-1)*len(blocks), 0, 0
	for r := 1; r < aesRounds; r++ {
		g.repeat(w, at(keys, schedule+16*r), key)
		for _, block := range blocks {
			g.aes(dir, false)(key, block, block)
			done++
			for ; emitted < len(beside)*done/total; emitted++ {
				beside[emitted]()
			}
		}
	}
}

// ecb encrypts blocks, already XORed with the first key.
func (g *generator) ecb(w width, dir direction, schedule int, key reg.VecPhysical, blocks []reg.VecPhysical) {
	g.rounds(w, dir, schedule, key, blocks, nil)
	g.repeat(w, at(keys, schedule+16*aesRounds), key)
	for _, block := range blocks {
		g.aes(dir, true)(key, block, block)
	}
}

// at is memory at base + offset.
func at(base reg.Register, offset int) operand.Mem {
	return operand.Mem{Base: base, Disp: offset}
}
