package vm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"vmcryptfs/integration/mounttest"
)

// TestDescriptorByIOUring opens VMDKs whose descriptor is not a multiple of 512 bytes
// long, by io_uring. QEMU before 10.0.7 waits for ever on any file system when the short
// read at such a file's end is answered at once: it puts the rest into its queue and never
// submits it. docs/operations.md says what to do; that has to work, and where a plain
// directory serves QEMU the mount must too.
func TestDescriptorByIOUring(t *testing.T) {
	t.Parallel()
	d := mounttest.New(t)
	plain := t.TempDir()
	io_uring := mode{"writeback", "io_uring"}
	create := func(dir string) string {
		return kind{name: "flat.vmdk", format: "vmdk", subformat: "monolithicFlat", data: "flat.vmdk"}.create(t, dir, io_uring).path
	}
	if !opens(create(plain), io_uring) {
		t.Log("this QEMU waits for ever on ext4 too")
	} else if !opens(create(d.Mnt), io_uring) {
		t.Error("QEMU opens the disk on ext4, and not on the mount")
	}

	for _, other := range []mode{{"none", "native"}, {"writeback", "threads"}} {
		if path := create(d.Mnt); !opens(path, other) {
			t.Errorf("%v does not open a disk with a short descriptor", other)
		}
	}
	for _, cache := range []string{"none", "writeback", "directsync"} {
		path := create(d.Mnt)
		padDescriptor(t, path)
		if !opens(path, mode{cache, "io_uring"}) {
			t.Errorf("cache %s: a padded descriptor does not help", cache)
		}
	}
	if st, err := os.Stat(d.Path("flat.vmdk")); err != nil || st.Size() != 4096 {
		t.Errorf("the descriptor is %v, %v; want 4096 bytes", st, err)
	}
	d.WantForms(map[string]string{"flat.vmdk": "clear", "flat-flat.vmdk": "encrypted"})
}

// opens tells if QEMU opens a VMDK and reads from it.
func opens(path string, m mode) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "qemu-io", "-f", "vmdk", "-t", m.cache, "-i", m.aio, "-c", "read -P 0 0 64k", filepath.Clean(path))
	return c.Run() == nil
}
