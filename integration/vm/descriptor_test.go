package vm

import (
	"context"
	"os"
	"os/exec"
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
	uring := mode{"writeback", "io_uring"}
	create := func(dir string) string {
		return kind{name: "flat.vmdk", format: "vmdk", subformat: "monolithicFlat", data: "flat.vmdk"}.create(t, dir, uring).path
	}
	if !opens(create(plain), uring, 5*time.Second) {
		t.Log("this QEMU waits for ever on ext4 too")
	} else if !opens(create(d.Mnt), uring, patience) {
		t.Error("QEMU opens the disk on ext4, and not on the mount")
	}

	for _, other := range []mode{{"none", "native"}, {"writeback", "threads"}} {
		if path := create(d.Mnt); !opens(path, other, patience) {
			t.Errorf("%v does not open a disk with a short descriptor", other)
		}
	}
	for _, cache := range []string{"none", "writeback", "directsync"} {
		path := create(d.Mnt)
		padDescriptor(t, path)
		if !opens(path, mode{cache, "io_uring"}, patience) {
			t.Errorf("cache %s: a padded descriptor does not help", cache)
		}
	}
	if st, err := os.Stat(d.Path("flat.vmdk")); err != nil || st.Size() != 4096 {
		t.Errorf("the descriptor is %v, %v; want 4096 bytes", st, err)
	}
	d.WantForms(map[string]string{"flat.vmdk": "clear", "flat-flat.vmdk": "encrypted"})
}

// opens tells if QEMU opens a VMDK and reads from it, and does not wait for ever.
func opens(path string, m mode, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	c := exec.CommandContext(ctx, "qemu-io", "-f", "vmdk", "-t", m.cache, "-i", m.aio, "-c", "read -P 0 0 64k", path)
	return c.Run() == nil
}
