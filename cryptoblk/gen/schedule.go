package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The key schedules: 15 round keys of 16 bytes each, a cache line apart.
const (
	encryptKeys = 0   // the data key's, to encrypt
	decryptKeys = 256 // the data key's, to decrypt (FIPS 197, equivalent inverse cipher)
	tweakKeys   = 512 // the tweak key's, to encrypt

	aesRounds = 14
)

// expandKeys emits the AES-256 key expansion (FIPS 197, section 5.2) for both
// halves of an XTS key, straight into the caller's memory.
func (g *generator) expandKeys() {
	g.function("expandKeys", "func(keys, key *byte)",
		"expandKeys fills keys with the schedules of both halves of key. Needs AES, AVX.")
	g.Load(g.Param("keys"), keys)
	g.Load(g.Param("key"), src)
	g.Comment("The data key")
	g.expand(at(src, 0), encryptKeys)
	g.Comment("The same backwards through InvMixColumns, to decrypt")
	for r := 0; r <= aesRounds; r++ {
		g.VMOVDQU(at(keys, encryptKeys+16*(aesRounds-r)), reg.X0)
		if r > 0 && r < aesRounds {
			g.VAESIMC(reg.X0, reg.X0)
		}
		g.VMOVDQU(reg.X0, at(keys, decryptKeys+16*r))
	}
	g.Comment("The tweak key")
	g.expand(at(src, 32), tweakKeys)
	g.VZEROALL()
	g.RET()
}

// expand emits the expansion of the 32 bytes at key to keys + to.
func (g *generator) expand(key operand.Mem, to int) {
	even, odd, word, shifted := reg.X0, reg.X1, reg.X2, reg.X3
	// next makes a round key of the two round keys before and a word of the last one.
	next := func(key reg.VecPhysical, round int) {
		g.VPSLLDQ(operand.U8(4), key, shifted)
		g.VPXOR(shifted, key, key)
		g.VPSLLDQ(operand.U8(8), key, shifted)
		g.VPXOR(shifted, key, key)
		g.VPXOR(word, key, key)
		g.VMOVDQU(key, at(keys, to+16*round))
	}
	g.VMOVDQU(key, even)
	g.VMOVDQU(key.Offset(16), odd)
	g.VMOVDQU(even, at(keys, to))
	g.VMOVDQU(odd, at(keys, to+16))
	for i := range 7 {
		g.VAESKEYGENASSIST(operand.U8(1<<i), odd, word)
		g.VPSHUFD(operand.U8(0xff), word, word)
		next(even, 2+2*i)
		if i == 6 {
			break
		}
		g.VAESKEYGENASSIST(operand.U8(0), even, word)
		g.VPSHUFD(operand.U8(0xaa), word, word)
		next(odd, 3+2*i)
	}
}

// cpuid emits the one test of the CPU missing in golang.org/x/sys/cpu.
func (g *generator) cpuid() {
	g.Function("cpuid7ECX")
	g.Doc("cpuid7ECX returns CPUID.(EAX=7, ECX=0):ECX. Needs a CPU that has leaf 7.")
	g.SignatureExpr("func() uint32")
	g.MOVL(operand.U32(7), reg.EAX)
	g.XORL(reg.ECX, reg.ECX)
	g.CPUID()
	g.Store(reg.ECX, g.ReturnIndex(0))
	g.RET()
}
