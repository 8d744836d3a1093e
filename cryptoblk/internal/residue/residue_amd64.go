//go:build !purego

// Package residue reads the leftovers of a function in vector registers and on the stack. Tests
// search the leftovers for secrets.
package residue

// StackSize is how many bytes of dead stack Stack shows.
const StackSize = 2048

// Registers256 stores registers Y0 to Y15. Needs AVX.
//
//go:noescape
func Registers256(y *[16][32]byte)

// Registers512 stores registers Z0 to Z31. Needs AVX-512 F.
//
//go:noescape
func Registers512(z *[32][64]byte)

// Stack stores the dead stack under the caller's frame, except for the few bytes used by this
// call.
//
//go:noescape
func Stack(s *[StackSize]byte)
