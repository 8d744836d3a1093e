package vm

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"vmcryptfs/integration/mounttest"
)

// TestDescriptorByIOUring opens VMDKs by io_uring, with descriptors whose length is no multiple
// of 512 bytes. At the end of such a file the read is short. If the short read is answered at
// once, QEMU before 10.0.7 waits for ever on any file system: QEMU queues the rest and never
// submits the queue. The remedy of docs/operations.md must work, and where a plain directory
// serves QEMU the mount must too.
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

// opens reports whether QEMU opens a VMDK and reads from the VMDK within a time, rather than
// waiting for ever.
func opens(path string, m mode, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	c := exec.CommandContext(ctx, "qemu-io", "-f", "vmdk", "-t", m.cache, "-i", m.aio, "-c", "read -P 0 0 64k", path)
	return c.Run() == nil
}
