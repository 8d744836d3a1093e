// Package cryptoblk is XTS-AES-256 (IEEE Std 1619-2007) over runs of 512-byte
// data units, as the encrypted file format uses it: data unit i is encrypted
// under the tweak i, a 128-bit little-endian integer.
//
// One call covers any number of units, in place or from one buffer to another,
// and allocates nothing. [Cipher.Decrypt] knows holes: a stored unit of 512 zero
// bytes was never written and reads as zeros, with no AES spent on it.
//
// XTS hides data and nothing more. It does not tell whether a block was altered:
// a changed block decrypts to noise in that block alone, and an older ciphertext
// of the same place decrypts to the older data. Ciphertext stealing is not
// built, so data units are multiples of 16 bytes, as the format has them.
//
// Several implementations give the same bytes; which one serves is decided once
// per process from what the CPU offers (see [Implementation]). None has a branch
// or a table index that depends on a key or on data, but for the test for holes,
// which depends on stored bytes that an attacker sees anyway. On a CPU without
// AES instructions the standard library's crypto/aes, which the portable
// implementation is built on, falls back to tables: [HardwareAES] tells.
package cryptoblk
