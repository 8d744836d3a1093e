package vm

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"vmcryptfs/integration/mounttest"
)

func TestMain(m *testing.M) {
	if os.Geteuid() == 0 { // else mounttest reports the fault
		// Outside the namespaces, where the package lists are hidden.
		if err := makeGuest(); err != nil {
			fmt.Fprintln(os.Stderr, "vm:", err)
			os.Exit(1)
		}
	}
	os.Exit(mounttest.Main(m.Run, "qemu-system-x86_64", "qemu-img", "qemu-io"))
}

const guestScript = "../../scripts/guest"

// guestDir is the directory for the guests' kernel and tools, kept from one run to the next; each
// version of the script that makes them has a directory of its own.
func guestDir() (string, error) {
	script, err := os.ReadFile(guestScript)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(script)
	return fmt.Sprintf("/var/cache/vmcryptfs/guest-%x", sum[:6]), nil
}

// makeGuest does nothing when the guest is there.
func makeGuest() error {
	dir, err := guestDir()
	if err != nil {
		return err
	}
	if text, err := exec.Command(guestScript, dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(guestScript), err, text)
	}
	return nil
}
