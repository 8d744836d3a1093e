// Package durability takes the power, the disk and the daemon away from under a load that
// remembers the promises received, and checks whether the promises hold: design §6.
package durability

import (
	"fmt"
	"os"
	"testing"
	"unsafe"

	"vmcryptfs/integration/mounttest"
)

func TestMain(m *testing.M) {
	if arg := os.Getenv(writersEnv); arg != "" {
		if err := writersMain(arg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(mounttest.Main(m.Run, "fio", "mkfs.ext4", "mount", "fusermount3"))
}

// unitSize is a data unit in bytes, stored as a whole.
const unitSize = 512

// aligned returns memory accepted by O_DIRECT everywhere.
func aligned(n int) []byte {
	b := make([]byte, n+4096)
	skip := -uintptr(unsafe.Pointer(&b[0])) & 4095
	return b[skip:][:n:n]
}
