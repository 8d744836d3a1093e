//go:build !purego

package cryptoblk

import (
	"runtime"
	"strings"

	"golang.org/x/sys/cpu"
)

// HardwareAES reports whether the CPU's AES instructions are used. Without AES instructions,
// crypto/aes is slow and works with tables; the tables' traces in the cache may show the key to
// other programs on the machine: worth a plain warning. The conditions are those of crypto/aes.
func HardwareAES() bool {
	return cpu.X86.HasAES && cpu.X86.HasSSE41 && cpu.X86.HasSSSE3 ||
		cpu.ARM64.HasAES || cpu.S390X.HasAES || strings.HasPrefix(runtime.GOARCH, "ppc64")
}
