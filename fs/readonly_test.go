package fs

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// TestSetReadOnly: a read-only filesystem removes nothing from BACKING; one that became writable
// sweeps, and may become read-only again.
func TestSetReadOnly(t *testing.T) {
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.ReadOnly = true })
	leftover := r.fs.temps.host + "0123-4567"
	r.plant(leftover, "x")
	r.idle()
	if !r.fs.ReadOnly() {
		t.Error("it is not read-only at first")
	}
	if _, err := os.Stat(r.under(leftover)); err != nil {
		t.Errorf("the leftover of a crash, read-only: %v", err)
	}
	r.plant("vm.log", "text")
	if f, err := os.OpenFile(r.path("vm.log"), os.O_WRONLY, 0); !errors.Is(err, unix.EROFS) {
		f.Close()
		t.Errorf("open for writing, read-only: %v", err)
	}
	r.fs.SetReadOnly(false)
	r.until("the leftover is gone", func() bool {
		_, err := os.Stat(r.under(leftover))
		return errors.Is(err, os.ErrNotExist)
	})
	r.fs.SetReadOnly(true)
	r.fs.SetReadOnly(true)
	if !r.fs.ReadOnly() {
		t.Error("it is not read-only again")
	}
}
