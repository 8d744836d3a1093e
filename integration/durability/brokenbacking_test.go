package durability

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// TestReadOnlyBacking makes BACKING read-only: while something is open for writing nobody
// can; then callers are told EROFS, reads go on, and with BACKING writable all works again.
func TestReadOnlyBacking(t *testing.T) {
	t.Parallel()
	d, disk := newOnLoop(t, 24, "")
	files := map[string][]byte{"a.img": noise(9000), "a.log": noise(9000)}
	for name, content := range files {
		if err := writeDurably(d.Path(name), content); err != nil {
			t.Fatal(err)
		}
	}
	remount := func(how string) error { return runTool("mount", "-o", "remount,"+how, disk.dir) }
	if err := onFile("a.img", 0, func(*os.File) error {
		if remount("ro") == nil {
			return errors.New("BACKING turned read-only under an open file")
		}
		return nil
	})(d); err != nil {
		t.Fatal(err)
	}
	// The kernel does not wait for the daemon's close.
	mounttest.Eventually(t, "remount BACKING read-only", mounttest.Patience, func() error { return remount("ro") })
	refused := 0
	for _, call := range []func() error{
		func() error { return mounttest.OpenErr(d.Path("a.img"), unix.O_RDWR) },
		func() error { return mounttest.OpenErr(d.Path("a.log"), unix.O_WRONLY) },
		func() error { return createNew(d.Path("b.img")) },
		func() error { return createNew(d.Path("b.log")) },
		func() error { return os.Mkdir(d.Path("b"), 0o755) },
		func() error { return os.Rename(d.Path("a.img"), d.Path("b.img")) },
		func() error { return os.Remove(d.Path("a.log")) },
		func() error { return os.Truncate(d.Path("a.img"), 0) },
		func() error { return os.Chmod(d.Path("a.img"), 0o600) },
	} {
		refused++
		if err := call(); !errors.Is(err, unix.EROFS) {
			t.Errorf("call %d on a read-only BACKING: %v, want EROFS", refused, err)
		}
	}
	wantContents(t, d, files)
	if n := d.Status().IO.BackingErrors; n < int64(refused) {
		t.Errorf("status counts %d errors of BACKING, callers were told %d", n, refused)
	}
	if err := remount("rw"); err != nil {
		t.Fatal(err)
	}
	files["a.img"] = noise(9000)
	if err := writeDurably(d.Path("a.img"), files["a.img"]); err != nil {
		t.Errorf("with BACKING writable again: %v", err)
	}
	d.Remount()
	wantContents(t, d, files)
	tally.Add(t, "faults", refused)
}

// TestBackingTurnsReadOnly is ext4 that meets an error of its own under load, and stops writing
// (errors=remount-ro): callers are told, the mount continues to serve, and synced data is there
// after fsck.
func TestBackingTurnsReadOnly(t *testing.T) {
	t.Parallel()
	d, disk := newOnLoop(t, 24, "errors=remount-ro")
	guest := &blocks{name: "disk.img", data: true}
	if err := guest.prepare(d); err != nil {
		t.Fatal(err)
	}
	device, err := deviceOf(disk.dir)
	if err != nil {
		t.Fatal(err)
	}
	answered := 0
	err = guest.work(d, rand.New(rand.NewPCG(1, 1)), func() error {
		if answered++; answered == 300 {
			return os.WriteFile(filepath.Join("/sys/fs/ext4", device, "trigger_fs_error"), []byte("1"), 0)
		}
		return nil
	})
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EIO) {
		t.Errorf("the writer of a BACKING that turned read-only after %d calls: %v", answered, err)
	}
	if err := guest.check(d); err != nil {
		t.Errorf("read with BACKING read-only: %v", err)
	}
	if n := d.Status().IO.BackingErrors; n == 0 {
		t.Error("status counts no error of BACKING")
	}
	d.Kill()
	if err := unix.Unmount(disk.dir, 0); err != nil {
		t.Fatal(err)
	}
	if r := mounttest.Run(t, nil, "e2fsck", "-p", disk.image); r.Code > 1 {
		t.Fatal(r)
	}
	if err := disk.mount(""); err != nil {
		t.Fatal(err)
	}
	d.Mount()
	if err := guest.check(d); err != nil {
		t.Errorf("after fsck: %v", err)
	}
	tally.Add(t, "faults", 1)
}

// deviceOf returns the name of the block device mounted at dir.
func deviceOf(dir string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", err
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	return filepath.Base(link), err
}

// TestTruncatedImage cuts off the end of the image of BACKING's disk: reads there give EIO, the
// rest is served, and with the end back everything is. A wrong view of a file whose header is out
// of reach does not last.
func TestTruncatedImage(t *testing.T) {
	t.Parallel()
	d, disk := newOnLoop(t, 24, "noatime")
	files := map[string][]byte{}
	for i := range 12 {
		name := fmt.Sprintf("part-%d.img", i)
		files[name] = noise(1 << 20)
		if err := writeDurably(d.Path(name), files[name]); err != nil {
			t.Fatal(err)
		}
	}
	// The journal lies behind the cut: with anything left to be written, even a time of access,
	// the next commit would put zeros between.
	mounttest.Tool(t, "sync", "-f", disk.dir)
	image, err := os.ReadFile(disk.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk.image, 12<<20); err != nil {
		t.Fatal(err)
	}
	good, refused := 0, 0
	for name, want := range files {
		got, err := readUncached(d, name)
		switch {
		case errors.Is(err, unix.EIO):
			refused++
		case err != nil:
			t.Errorf("%s: %v, want EIO or its content", name, err)
		case !bytes.Equal(got, want):
			t.Errorf("%s: other bytes, and no error", name)
		default:
			good++
		}
		if st, err := os.Stat(d.Path(name)); err != nil {
			t.Error(err)
		} else if st.Size() != int64(len(want)) {
			t.Errorf("%s: shown with %d bytes, want %d even where its header is out of reach", name, st.Size(), len(want))
		}
	}
	if good == 0 || refused == 0 {
		t.Errorf("%d files were read and %d refused, want both", good, refused)
	}
	if n := d.Status().IO.BackingErrors; n < int64(refused) {
		t.Errorf("status counts %d errors of BACKING, callers were told %d", n, refused)
	}
	f, err := os.OpenFile(disk.image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(image[12<<20:], 12<<20); err != nil {
		t.Fatal(err)
	}
	wantContents(t, d, files)
	tally.Add(t, "faults", refused)
	t.Logf("%d of %d files refused", refused, len(files))
}

// readUncached reads a file without cached pages in the mount and in BACKING.
func readUncached(d *mounttest.Datastore, name string) (content []byte, err error) {
	f, err := os.Open(d.Below(name))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, err
	}
	err = onFile(name, unix.O_DIRECT, func(f *os.File) error {
		content = aligned(1 << 20)
		n, err := f.ReadAt(content, 0)
		content = content[:n]
		return err
	})(d)
	return content, err
}
