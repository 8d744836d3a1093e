package integration

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"vmcryptfs/integration/mounttest"
)

func TestMain(m *testing.M) {
	os.Exit(mounttest.Main(func() int { return runTests(m) },
		"qemu-img", "qemu-io", "fio", "rsync", "tar", "cp", "mv", "dd", "fallocate", "truncate", "logrotate", "dotlockfile"))
}

func runTests(m *testing.M) int {
	// A step of the model is a handful of system calls on two file systems, so fewer and longer
	// sequences than rapid's 100 find more. Flags given by hand win.
	for name, value := range map[string]string{"rapid.checks": "60", "rapid.steps": "60", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			fmt.Fprintln(os.Stderr, "integration:", err)
			return 1
		}
	}
	return m.Run()
}
