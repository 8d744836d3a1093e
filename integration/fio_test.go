package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"vmcryptfs/integration/mounttest"
)

// TestFioVerify makes fio write blocks with checksums and read the blocks back, at the sizes and
// in the ways of guests and of backup tools, then once more after a remount.
func TestFioVerify(t *testing.T) {
	t.Parallel()
	size := "--size=12m"
	if testing.Short() {
		size = "--size=3m"
	}
	t.Run("ext4", func(t *testing.T) { fioVerify(t, newDatastore(t), size) })
	// tmpfs has no O_DIRECT, no NOWAIT and no zero-range.
	t.Run("tmpfs", func(t *testing.T) {
		d := newUnmounted(t, mounttest.Embedded{Dir: filepath.Join(t.TempDir(), "devkms")}).onTmpfs()
		d.Mount()
		fioVerify(t, d, size)
	})
}

func fioVerify(t *testing.T, d *datastore, size string) {
	loads := map[string]string{
		"direct-512":      "--bs=512 --direct=1 --ioengine=libaio --iodepth=16 --size=4m",
		"direct-4k":       "--bs=4k --direct=1 --ioengine=io_uring --iodepth=16",
		"direct-mixed":    "--bsrange=512-64k --direct=1 --ioengine=io_uring --iodepth=16",
		"direct-dsync":    "--bs=4k --direct=1 --ioengine=libaio --iodepth=16 --fdatasync=64",
		"buffered-512":    "--bs=512 --ioengine=psync --size=2m",
		"buffered-4k":     "--bs=4k --ioengine=io_uring --iodepth=16",
		"buffered-mixed":  "--bsrange=512-128k --ioengine=libaio --iodepth=16",
		"buffered-odd":    "--bs=1111 --ioengine=psync --size=2m",
		"buffered-shared": "--bs=4k --ioengine=psync --numjobs=2 --offset_increment=12m",
		"mmap":            "--bs=4k --ioengine=mmap --size=4m",
	}
	fio := func(name, load string, more ...string) {
		args := append([]string{"fio", "--name=" + name, "--filename=" + d.Path(name+".raw"), "--rw=randwrite",
			"--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--randrepeat=1", "--thread", "--minimal", size},
			strings.Fields(load)...)
		mounttest.Tool(t, append(args, more...)...)
	}
	for name, load := range loads {
		fio(name, load)
	}
	d.Remount()
	for name, load := range loads {
		fio(name, load, "--verify_only=1")
	}
	c := d.verify()
	if c.encrypted != len(loads) {
		t.Errorf("%d encrypted files, want %d", c.encrypted, len(loads))
	}
	t.Logf("%d fio loads written, verified, and verified after a remount", len(loads))
}
