package durability

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// newOnLoop mounts a datastore whose BACKING is ext4 of so many MiB on a loop device.
func newOnLoop(t *testing.T, mib int, options string) (*mounttest.Datastore, loopDisk) {
	t.Helper()
	return newOnLoopAt(t, filepath.Join(t.TempDir(), "disk.img"), mib, options)
}

// newOnLoopAt is newOnLoop with the image at a path and options of mkfs.ext4.
func newOnLoopAt(t *testing.T, image string, mib int, options string, features ...string) (*mounttest.Datastore, loopDisk) {
	t.Helper()
	d := mounttest.NewUnmounted(t, mounttest.Embedded{Dir: filepath.Join(t.TempDir(), "devkms")})
	disk := loopDisk{image, d.Backing}
	if err := errors.Join(makeExt4(disk.image, mib, append(features, "-m", "0")...), disk.mount(options)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the daemon first: the daemon holds BACKING
		if d.PID != 0 {
			d.Kill()
		}
		if err := unix.Unmount(d.Backing, unix.MNT_DETACH); err != nil && err != unix.EINVAL {
			t.Error(err)
		}
	})
	d.Mount()
	return d, disk
}

// TestFull fills BACKING to the brim, and does operations there that need space: each gives
// ENOSPC or works, nothing is damaged, and with space again all work.
func TestFull(t *testing.T) {
	t.Parallel()
	d, _ := newOnLoop(t, 24, "")
	files := map[string][]byte{
		"disk-flat.vmdk": noise(1 << 20), "vm.nvram": noise(5001), "vm.vmx": bytes.Repeat([]byte("a = 1\n"), 300),
		"vmware.log": noise(9000), "vm.vmdk": []byte("# Disk DescriptorFile\nversion=1\n"), "state.dat": noise(700),
	}
	for name, content := range files {
		if err := writeDurably(d.Path(name), content); err != nil {
			t.Fatal(err)
		}
	}
	sparse, err := os.Create(d.Path("sparse.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sparse.Close() }()
	if err := sparse.Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	written := fill(t, d)
	if written == 0 {
		t.Fatal("nothing was written before BACKING was full")
	}
	before := d.Status().IO.BackingErrors
	refused := 0
	for _, try := range tightCalls(d, sparse) {
		err := try.do()
		switch {
		case errors.Is(err, unix.ENOSPC):
			refused++
		case err != nil:
			t.Errorf("%s while BACKING is full: %v, want ENOSPC or nothing", try.what, err)
		case try.must:
			t.Errorf("%s works while BACKING is full", try.what)
		}
	}
	if n := d.Status().IO.BackingErrors - before; n < int64(refused) {
		t.Errorf("status counts %d errors of BACKING, callers were told %d", n, refused)
	}
	inPlace(t, d, files)
	if r := d.Command("rekey", d.Mnt, "--new"); r.Code == 0 {
		t.Log("a rekey found the space that it needs")
	}
	wantContents(t, d, files)
	if left, err := filepath.Glob(d.Below(".vmcryptfs-*")); err != nil || len(left) > 0 {
		t.Errorf("BACKING keeps temporaries: %v, %v", left, err)
	}
	if err := os.Remove(d.Path("fill.img")); err != nil {
		t.Fatal(err)
	}
	// The kernel does not wait for the daemon, which has the file until it hears that nobody else has.
	mounttest.Eventually(t, "space again", mounttest.Patience, func() error {
		var st unix.Statfs_t
		if err := unix.Statfs(d.Backing, &st); err != nil || int64(st.Bavail)*st.Bsize < written/2 {
			return fmt.Errorf("%d blocks of %d bytes, %v", st.Bavail, st.Bsize, err)
		}
		return nil
	})
	for _, try := range tightCalls(d, sparse) {
		if err := try.do(); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s with space again: %v", try.what, err)
		}
	}
	d.Must("rekey", d.Mnt, "--new")
	_ = sparse.Close()
	d.Remount()
	wantContents(t, d, files)
	tally.Add(t, "faults", refused)
	t.Logf("%d calls refused", refused)
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32()) | 1
	}
	return b
}

// fill writes until there is no room for a unit, with ever smaller writes.
func fill(t *testing.T, d *mounttest.Datastore) (written int64) {
	t.Helper()
	f, err := os.Create(d.Path("fill.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for n := 1 << 20; n >= unitSize; n /= 2 {
		for {
			done, err := f.WriteAt(noise(n), written)
			written += int64(done)
			if errors.Is(err, unix.ENOSPC) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Sync(); err != nil {
		t.Errorf("sync of what was answered: %v", err)
	}
	if got, err := io.Copy(io.Discard, io.NewSectionReader(f, 0, written)); err != nil || got != written {
		t.Errorf("of %d bytes written, %d are read: %v", written, got, err)
	}
	return written
}

// tightCall is a call that may need space; must: the call cannot do without.
type tightCall struct {
	what string
	do   func() error
	must bool
}

func tightCalls(d *mounttest.Datastore, sparse *os.File) []tightCall {
	dir := d.Mnt
	synced := func(f *os.File, p []byte, off int64) error {
		if _, err := f.WriteAt(p, off); err != nil {
			return err
		}
		return f.Sync()
	}
	return []tightCall{
		{"a write to a hole", func() error { return synced(sparse, noise(1<<20), 32<<20) }, true},
		{"a reservation", func() error { return fallocate(sparse, 0, 8<<20, 4<<20) }, true},
		{"a longer log", func() error {
			f, err := os.OpenFile(filepath.Join(dir, "new.log"), os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				return err
			}
			err = synced(f, noise(1<<20), 0)
			return errors.Join(err, f.Close(), os.Remove(f.Name()))
		}, true},
		{"a new encrypted file", func() error {
			path := filepath.Join(dir, "new.img")
			return errors.Join(createNew(path), removeIfThere(path))
		}, false},
		{"a directory", func() error {
			path := filepath.Join(dir, "new")
			return errors.Join(os.Mkdir(path, 0o755), removeIfThere(path))
		}, false},
		{"a greater size", func() error { return sparse.Truncate(65 << 20) }, false},
		{"a rename", func() error {
			return errors.Join(os.Rename(filepath.Join(dir, "vm.nvram"), filepath.Join(dir, "vm2.nvram")), os.Rename(filepath.Join(dir, "vm2.nvram"), filepath.Join(dir, "vm.nvram")))
		}, false},
		{"a rename that encrypts", func() error {
			if err := os.Rename(filepath.Join(dir, "vm.vmx"), filepath.Join(dir, "vm.bin")); err != nil {
				return err
			}
			return os.Rename(filepath.Join(dir, "vm.bin"), filepath.Join(dir, "vm.vmx"))
		}, false},
		{"a descriptor that becomes a disk", func() error {
			f, err := os.OpenFile(filepath.Join(dir, "vm.vmdk"), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("KDMV"), 0)
			if err == nil {
				_, err = f.WriteAt([]byte("# Di"), 0)
			}
			return errors.Join(err, f.Sync(), f.Close())
		}, false},
	}
}

func removeIfThere(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// inPlace overwrites allocated ranges: such a write needs no space.
func inPlace(t *testing.T, d *mounttest.Datastore, files map[string][]byte) {
	t.Helper()
	for _, name := range []string{"disk-flat.vmdk", "vm.nvram", "vmware.log"} {
		content := noise(len(files[name]))
		err := onFile(name, 0, func(f *os.File) error {
			_, err := f.WriteAt(content, 0)
			return errors.Join(err, f.Sync())
		})(d)
		if err != nil {
			t.Errorf("write in place while BACKING is full: %v", err)
		}
		files[name] = content
	}
}

func wantContents(t *testing.T, d *mounttest.Datastore, files map[string][]byte) {
	t.Helper()
	for name, want := range files {
		if got, err := os.ReadFile(d.Path(name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v, want its %d", name, len(got), err, len(want))
		}
	}
	if n := d.Status().IO.Damaged; n > 0 {
		t.Errorf("status counts %d times damage", n)
	}
}
