// Package cryptoblk is XTS-AES-256 (IEEE Std 1619-2007) over runs of 512-byte data units, as used
// by the encrypted file format: data unit i is encrypted under the tweak i, a 128-bit
// little-endian integer.
//
// One call covers any number of units, in place or from one buffer to another, and allocates
// nothing. [Cipher.Decrypt] knows holes: a stored unit of 512 zero bytes was never written and
// reads as zeros, with no AES spent.
//
// XTS hides data and nothing more. XTS does not reveal whether a block was altered: a changed
// block decrypts to noise in the same block alone, and an older ciphertext of the same place
// decrypts to the older data. Ciphertext stealing is not built, so data units are multiples of 16
// bytes, as in the format.
//
// Several implementations give the same bytes; the choice is made once per process by the CPU's
// features (see [Implementation]). No implementation has a branch or a table index that depends
// on a key or on data. The one exception is the test for holes, which depends on stored bytes,
// known to an attacker anyway. On a CPU without AES instructions the standard library's
// crypto/aes, the base of the portable implementation, falls back to tables: see [HardwareAES].
package cryptoblk
