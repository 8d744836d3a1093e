package transport

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/mounts"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == floodCommand {
		floodMain(os.Args[2:])
		return
	}
	goleak.VerifyTestMain(m)
}

// oneDir is a file system of an empty directory. The embedded default is right here:
// unimplemented operations are ENOSYS.
type oneDir struct{ fuse.RawFileSystem }

func newOneDir() oneDir { return oneDir{fuse.NewDefaultRawFileSystem()} }

func (oneDir) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Ino, out.Mode, out.Nlink = in.NodeId, unix.S_IFDIR|0o755, 2
	return fuse.OK
}

func mounted(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == path {
			return f[0] + " " + f[2] + " " + f[3]
		}
	}
	return ""
}

func TestServeAndUnmount(t *testing.T) { eachTransport(t, testServeAndUnmount) }

// eachTransport runs a test on each transport.
func eachTransport(t *testing.T, test func(t *testing.T, name string)) {
	for _, name := range Names {
		t.Run(name, func(t *testing.T) { test(t, name) })
	}
}

func testServeAndUnmount(t *testing.T, transport string) {
	dir := t.TempDir()
	s, err := Serve(dir, newOneDir(), Options{FsName: "/srv/backing, with comma", AllowOther: true, Extra: []string{"noexec"}, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	line := mounted(t, dir)
	for _, want := range []string{"fuse.vmcryptfs", "nosuid", "nodev", "noexec", "default_permissions", "allow_other", "max_read=1048576"} {
		if !strings.Contains(line, want) {
			t.Errorf("mounted as %q, without %s", line, want)
		}
	}
	if s.Name() != transport {
		t.Errorf("name %q", s.Name())
	}
	// A busy mount says so at once, and serves on.
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(false); !errors.Is(err, unix.EBUSY) {
		t.Errorf("unmount of a busy mount: %v", err)
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		t.Errorf("after that: %v", err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(false); err != nil {
		t.Fatal(err)
	}
	s.Wait()
	if err := s.Unmount(false); err != nil {
		t.Errorf("unmount again: %v", err)
	}
	if line := mounted(t, dir); line != "" {
		t.Errorf("still mounted: %q", line)
	}
}

func TestLazyUnmount(t *testing.T) { eachTransport(t, testLazyUnmount) }

func testLazyUnmount(t *testing.T, transport string) {
	dir := t.TempDir()
	s, err := Serve(dir, newOneDir(), Options{ReadOnly: true, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	if line := mounted(t, dir); !strings.Contains(line, " ro,") {
		t.Errorf("mounted as %q, not read-only", line)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(true); err != nil {
		t.Fatal(err)
	}
	if line := mounted(t, dir); line != "" {
		t.Errorf("still mounted: %q", line)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Errorf("what is open is served no more: %v", err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	s.Wait()
}

func TestNoMountpoint(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport string) {
		s, err := Serve(filepath.Join(t.TempDir(), "missing"), newOneDir(), Options{Transport: transport})
		if s != nil || !errors.Is(err, unix.ENOENT) {
			t.Errorf("%v, %v", s, err)
		}
	})
}

// TestChosen: root's mounts are served by the loop; an unknown transport's name is an error.
func TestChosen(t *testing.T) {
	s, err := Serve(t.TempDir(), newOneDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Name() != Loop {
		t.Errorf("served by %q", s.Name())
	}
	if err := s.Unmount(false); err != nil {
		t.Fatal(err)
	}
	s.Wait()
	if s, err := Serve(t.TempDir(), newOneDir(), Options{Transport: "virtio"}); s != nil || err == nil {
		t.Errorf("%v, %v: want an error for a transport that is not known", s, err)
	}
}

// TestPlaceTaken: after a lazy unmount by another program, the mount must not end another mount
// at the same place.
func TestPlaceTaken(t *testing.T) { eachTransport(t, testPlaceTaken) }

func testPlaceTaken(t *testing.T, transport string) {
	dir := t.TempDir()
	serve := func() Server {
		s, err := Serve(dir, newOneDir(), Options{Transport: transport})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	old := serve()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	for _, lazy := range []bool{false, true} {
		if err := old.Unmount(lazy); !errors.Is(err, mounts.ErrNotMounted) {
			t.Errorf("unmount of what is not mounted: %v", err)
		}
	}
	other := serve()
	for _, lazy := range []bool{false, true} {
		if err := old.Unmount(lazy); !errors.Is(err, mounts.ErrNotMounted) {
			t.Errorf("unmount of what another mount has taken the place of: %v", err)
		}
	}
	if _, err := other.Find(); err != nil {
		t.Errorf("the other mount: %v", err)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	old.Wait()
	if err := other.Unmount(false); err != nil {
		t.Fatal(err)
	}
	other.Wait()
}

// TestAborted: a mount with an aborted connection ends, and the dead mount left is found.
func TestAborted(t *testing.T) { eachTransport(t, testAborted) }

func testAborted(t *testing.T, transport string) {
	dir := t.TempDir()
	s, err := Serve(dir, newOneDir(), Options{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	abort(t, dir)
	s.Wait()
	if m, err := s.Find(); err != nil || m.Mountpoint != dir {
		t.Errorf("found %+v, %v; want the dead mount", m, err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Find(); !errors.Is(err, mounts.ErrNotMounted) {
		t.Errorf("found %+v, %v after the unmount", m, err)
	}
}
