// Package leak shows tests what a process has open.
package leak

import (
	"os"
	"testing"
)

// Descriptors is the number of open descriptors of this process.
func Descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
