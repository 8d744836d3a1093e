//go:build !purego

package cryptoblk

import (
	"math/bits"

	"golang.org/x/sys/cpu"
)

//go:generate go -C gen run .

// stretch is the number of data units for one call of a kernel: 128 KiB take 5 to 20
// microseconds. For that time the scheduler and the garbage collector cannot stop a kernel.
const stretch = 256

// kernel is the assembly at one register width, for whole units; see gen.
type kernel struct {
	encrypt, decrypt func(dst, src *byte, units int, keys *byte, lo, hi uint64)
}

// assembled is XTS on a kernel. The keys are nowhere but in the schedule memory.
type assembled struct {
	kernel
	keys *[ScheduleSize]byte
}

// assembly lists the kernels for this CPU, the fastest first. Package cpu checks too whether the
// operating system saves the registers.
func assembly() []implementation {
	if !cpu.X86.HasAES || !cpu.X86.HasPCLMULQDQ || !cpu.X86.HasAVX {
		return nil
	}
	list := []implementation{implement("aesni", kernel{encryptUnitsAESNI, decryptUnitsAESNI})}
	if !cpu.X86.HasAVX2 || !hasVAES() {
		return list
	}
	list = append([]implementation{implement("vaes", kernel{encryptUnitsVAES, decryptUnitsVAES})}, list...)
	if !cpu.X86.HasAVX512F || !cpu.X86.HasAVX512BW {
		return list
	}
	return append([]implementation{implement("vaes512", kernel{encryptUnitsVAES512, decryptUnitsVAES512})}, list...)
}

// hasVAES reports whether the CPU has VAES and VPCLMULQDQ; package cpu reports both only for CPUs
// with AVX-512. AVX2 implies that CPUID has leaf 7.
func hasVAES() bool {
	const vaes, vpclmulqdq = 1 << 9, 1 << 10
	return cpuid7ECX()&(vaes|vpclmulqdq) == vaes|vpclmulqdq
}

func implement(name string, k kernel) implementation {
	return implementation{name, func(key *[KeySize]byte, schedule *[ScheduleSize]byte) (engine, error) {
		expandKeys(&schedule[0], &key[0])
		return &assembled{k, schedule}, nil
	}}
}

func (a *assembled) encrypt(dst, src []byte, first tweak) {
	a.run(dst, src, first, a.kernel.encrypt, encryptShort)
}

func (a *assembled) decrypt(dst, src []byte, first tweak) {
	a.run(dst, src, first, a.kernel.decrypt, decryptShort)
}

type assemblyFunc = func(dst, src *byte, n int, keys *byte, lo, hi uint64)

// run passes whole units to whole, a stretch at a time, and the rest to short.
func (a *assembled) run(dst, src []byte, t tweak, whole, short assemblyFunc) {
	for len(src) >= UnitSize {
		n := min(len(src)/UnitSize, stretch)
		if end := -t.lo; end != 0 && end < uint64(n) {
			n = int(end) // whole does not carry into the upper half
		}
		whole(&dst[0], &src[0], n, &a.keys[0], t.lo, t.hi)
		dst, src = dst[n*UnitSize:], src[n*UnitSize:]
		var carry uint64
		t.lo, carry = bits.Add64(t.lo, uint64(n), 0)
		t.hi += carry
	}
	if len(src) > 0 {
		short(&dst[0], &src[0], len(src)/blockSize, &a.keys[0], t.lo, t.hi)
	}
}
