//go:build purego

package cryptoblk

// HardwareAES reports false: the purego build tag keeps crypto/aes, too, from
// using AES instructions.
func HardwareAES() bool { return false }
