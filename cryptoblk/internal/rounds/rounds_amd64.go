//go:build !purego

// Package rounds is AES-256's fourteen rounds and nothing around them, at each register width:
// the speed limit for cryptoblk's kernels.
package rounds

// Bytes128, Bytes256 and Bytes512 are the bytes encrypted by a pass of the function with the same
// width: eight registers.
const (
	Bytes128 = 8 * 16
	Bytes256 = 8 * 32
	Bytes512 = 8 * 64
)

// AESNI makes n passes, n > 0, on 128-bit registers. Needs AES, AVX. keys is 15
// round keys.
//
//go:noescape
func AESNI(n int, keys *[240]byte)

// VAES makes n passes on 256-bit registers. Needs VAES, AVX2.
//
//go:noescape
func VAES(n int, keys *[240]byte)

// VAES512 makes n passes on 512-bit registers. Needs VAES, AVX-512 F.
//
//go:noescape
func VAES512(n int, keys *[240]byte)
