package mounts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const text = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
36 22 0:58 /a\040part /vm/with\040space rw,nosuid shared:7 master:2 - fuse.vmcryptfs /srv/back\134slash rw,user_id=1000
37 22 0:59 / /none rw - tmpfs  rw
38 22 0:60 / /dash\011- rw - fuse.vmcryptfs /a\040-\040b rw
` + "39 22 0:61 /a\\040dir /vm\u3000\u00a0\r\f rw - fuse.vmcryptfs /\u2003\u0085d rw\n"
	want := []Mount{
		{22, 1, "254:0", "/", "/", "rw,relatime", "ext4", "/dev/root", "rw", 1, 0},
		{36, 22, "0:58", "/a part", "/vm/with space", "rw,nosuid", FSType, `/srv/back\slash`, "rw,user_id=1000", 7, 2},
		{37, 22, "0:59", "/", "/none", "rw", "tmpfs", "", "rw", 0, 0},
		{38, 22, "0:60", "/", "/dash\t-", "rw", FSType, "/a - b", "rw", 0, 0},
		{39, 22, "0:61", "/a dir", "/vm\u3000\u00a0\r\f", "rw", FSType, "/\u2003\u0085d", "rw", 0, 0},
	}
	got, err := parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mounts differ (-want +got):\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"\n", "36 22 0:58 / /vm rw", "36 22 0:58 / /vm - fuse", "x 22 0:58 / /vm rw - fuse a b", "36 x 0:58 / /vm rw - fuse a b",
	} {
		if got, err := parse(strings.NewReader(line)); err == nil {
			t.Errorf("parse(%q) = %v, want an error", line, got)
		}
	}
}

// TestUppermost: of the mounts at one path the covering one counts, in any order of making.
func TestUppermost(t *testing.T) {
	t.Parallel()
	root, other := Mount{ID: 22, Parent: 1, Mountpoint: "/"}, Mount{ID: 30, Parent: 22, Mountpoint: "/other"}
	dead := Mount{ID: 36, Parent: 37, Mountpoint: "/vm"}
	beneath := Mount{ID: 37, Parent: 22, Mountpoint: "/vm"}
	over := Mount{ID: 38, Parent: 36, Mountpoint: "/vm"}
	for name, c := range map[string]struct {
		all  []Mount
		path string
		want Mount
	}{
		"one":              {[]Mount{root, other, beneath}, "/vm", beneath},
		"a later, beneath": {[]Mount{root, dead, beneath}, "/vm", dead},
		"a later, over":    {[]Mount{root, beneath, dead, over, other}, "/vm", over},
		"none":             {[]Mount{root, other}, "/vm", Mount{}},
	} {
		if got, ok := uppermost(c.all, c.path); got != c.want || ok != (c.want != Mount{}) {
			t.Errorf("%s: %+v, %t, want %+v", name, got, ok, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("36 22 0:58 / /vm\\040x rw shared:7 - fuse.vmcryptfs /srv rw\n")
	f.Add("1 2 3:4 / \\777 rw - a\\ \\1 c")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parse(strings.NewReader(text))
		if err != nil && got != nil && len(got) > len(text) {
			t.Errorf("%d mounts of %d bytes", len(got), len(text))
		}
	})
}

func TestUnescape(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "/plain": "/plain", `/a\040b`: "/a b", `/\011\012\134`: "/\t\n\\",
		`/end\04`: `/end\04`, `/bad\999`: `/bad\999`, `/\377`: "/\xff",
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestBelow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, dir string
		want      bool
	}{
		{"/a", "/a", true}, {"/a/b", "/a", true}, {"/ab", "/a", false},
		{"/", "/a", false}, {"/a", "/", true}, {"/a b", "/a", false},
	} {
		if got := Below(c.path, c.dir); got != c.want {
			t.Errorf("Below(%q, %q) = %t, want %t", c.path, c.dir, got, c.want)
		}
	}
}

func TestMapsDevice(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"0:58": "00:3a", "254:0": "fe:00", "259:300": "103:12c"} {
		if got := mapsDevice(in); got != want {
			t.Errorf("mapsDevice(%q) = %q, want %q", in, got, want)
		}
	}
}

// tmpfs mounts a file system for the test, as any mount can be held.
func tmpfs(t *testing.T) Mount {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts a file system: run it as root")
	}
	// White space in paths; the kernel escapes only some.
	dir := filepath.Join(t.TempDir(), "a\u3000 mount")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.Mountpoint == dir {
			return m
		}
	}
	t.Fatalf("%s is not in the list of mounts", dir)
	return Mount{}
}

// holderOf runs a command until the test ends, and gives the command's entry from Holders.
func holderOf(t *testing.T, m Mount, script string) (Holder, bool) {
	t.Helper()
	c := exec.Command("/bin/sh", "-c", script+`; echo ready; read wait`)
	c.Dir = "/"
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); c.Wait() })
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	for _, h := range holdersOf(t, m) {
		if h.PID == c.Process.Pid {
			return h, true
		}
	}
	return Holder{}, false
}

func holdersOf(t *testing.T, m Mount) []Holder {
	t.Helper()
	holders, err := Holders(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return holders
}

func TestHolders(t *testing.T) {
	m := tmpfs(t)
	file := filepath.Join(m.Mountpoint, "disk.vmdk")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ script, what string }{
		"open file":         {"exec 3<'" + file + "'", file},
		"working directory": {"cd '" + m.Mountpoint + "'", m.Mountpoint},
		"none":              {"true", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h, found := holderOf(t, m, c.script)
			if found != (c.what != "") || h.What != c.what {
				t.Errorf("holder is %+v (found: %t), want one of %q", h, found, c.what)
			}
			if found && h.Name != "sh" {
				t.Errorf("its name is %q, want sh", h.Name)
			}
		})
	}
}

func TestHoldersOfMapping(t *testing.T) {
	m := tmpfs(t)
	path := filepath.Join(m.Mountpoint, "mapped file")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(p)
	for _, h := range holdersOf(t, m) {
		if h.PID == os.Getpid() {
			if h.What != path {
				t.Errorf("it uses %q, want %q", h.What, path)
			}
			return
		}
	}
	t.Error("this process is not found")
}

func TestHoldersBelow(t *testing.T) {
	m := tmpfs(t)
	inner := filepath.Join(m.Mountpoint, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", inner, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(inner, unix.MNT_DETACH)
	err := Unmount(t.Context(), m, false)
	var busy *BusyError
	if !errors.As(err, &busy) || !errors.Is(err, unix.EBUSY) {
		t.Fatalf("Unmount: %v, want a BusyError", err)
	}
	if want := "the kernel uses mount " + inner; !strings.Contains(err.Error(), want) {
		t.Errorf("Unmount: %q, want it to say %q", err, want)
	}
}

func TestHoldersOfLoop(t *testing.T) {
	m := tmpfs(t)
	image := filepath.Join(m.Mountpoint, "disk image")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	device := strings.TrimSpace(mounttest.Tool(t, "losetup", "--find", "--show", image))
	t.Cleanup(func() { mounttest.Tool(t, "losetup", "--detach", device) })
	err := Unmount(t.Context(), m, false)
	if want := "the kernel uses loop " + device; !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), want) {
		t.Errorf("Unmount: %v, want it to say %q", err, want)
	}
}

func TestUnmount(t *testing.T) {
	m := tmpfs(t)
	f, err := os.Create(filepath.Join(m.Mountpoint, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = Unmount(t.Context(), m, false)
	var busy *BusyError
	if !errors.As(err, &busy) {
		t.Fatalf("Unmount beside an open file: %v, want a BusyError", err)
	}
	if len(busy.Holders) != 1 || busy.Holders[0].PID != os.Getpid() {
		t.Errorf("holders are %v, want this process", busy.Holders)
	}
	if err := Unmount(t.Context(), m, true); err != nil {
		t.Fatalf("lazy Unmount: %v", err)
	}
	if _, err := f.Write([]byte("still there")); err != nil {
		t.Errorf("the open file after a lazy Unmount: %v", err)
	}
}

func TestBusyErrorNamesFew(t *testing.T) {
	t.Parallel()
	e := &BusyError{Mountpoint: "/vm"}
	if got, want := e.Error(), "/vm is busy: "+unseen; got != want {
		t.Errorf("no holder known: %q, want %q", got, want)
	}
	for range maxNamed + 2 {
		e.Holders = append(e.Holders, Holder{PID: 1, Name: "qemu", What: "/vm/a"})
	}
	const one = "qemu (pid 1) uses /vm/a"
	want := "/vm is busy: " + one + strings.Repeat("; "+one, maxNamed-1) + "; and 2 more"
	if got := e.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFindNothing(t *testing.T) {
	dir := t.TempDir()
	if m, err := Find(dir); !errors.Is(err, ErrNotMounted) {
		t.Errorf("Find of a plain directory = %v, %v; want ErrNotMounted", m, err)
	}
	if m, err := Find(filepath.Join(dir, "no", "such")); err == nil || errors.Is(err, ErrNotMounted) {
		t.Errorf("Find of a missing path = %v, %v; want that it is missing", m, err)
	}
	other := tmpfs(t)
	_, err := Find(other.Mountpoint)
	if !errors.Is(err, ErrNotMounted) || !strings.Contains(err.Error(), "tmpfs") {
		t.Errorf("Find of another file system: %v, want ErrNotMounted with its type", err)
	}
	if got, ok, err := Backing(filepath.Join(other.Mountpoint, "x")); ok || err != nil || got != filepath.Join(other.Mountpoint, "x") {
		t.Errorf("Backing of another file system = %q, %t, %v; want the path itself", got, ok, err)
	}
}

// TestOpenBare: the content of the directory below a mount is seen, and no other directory is
// taken for the one below.
func TestOpenBare(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "below"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	over := func() Mount {
		if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		all, err := List()
		if err != nil {
			t.Fatal(err)
		}
		m, _ := uppermost(all, dir)
		return m
	}
	m := over()
	bare, err := OpenBare(m)
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	names, err := bare.Readdirnames(-1)
	if err != nil || len(names) != 1 || names[0] != "below" {
		t.Errorf("below the mount lie %q, %v; want the one file", names, err)
	}
	if bare, err := OpenBare(over()); err == nil {
		bare.Close()
		t.Error("a directory was opened that is not the one below the mount")
	}
	if bare, err := OpenBare(Mount{Mountpoint: filepath.Join(dir, "missing")}); err == nil {
		bare.Close()
		t.Error("a directory that is not there was opened")
	}
}

// TestResolve: links on the way and at the end are followed. The file at the end is not asked.
func TestResolve(t *testing.T) {
	t.Parallel()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"abs": filepath.Join(top, "a/b"), "rel": "a/b/", "chain": "rel", "way": "a", "up": "way/b/../b", "dots": "a/b/..",
		"c/out": "../way/b", "loop": "loop", "gone": "a/none", "c/deep": "../abs/../b",
	} {
		if err := os.Symlink(target, filepath.Join(top, name)); err != nil {
			t.Fatal(err)
		}
	}
	for in, want := range map[string]string{
		"a/b": "a/b", "abs": "a/b", "rel": "a/b", "chain": "a/b", "way/b": "a/b", "way/b/": "a/b", "up": "a/b", "dots": "a",
		"c/out": "a/b", "gone": "a/none", "a/none": "a/none", "c/deep": "a/b", "loop": "", "none/x": "",
	} {
		got, err := resolve(filepath.Join(top, in))
		if want != "" {
			want = filepath.Join(top, want)
		}
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s leads to %q, %v; want %q", in, got, err, want)
		}
	}
	if got, err := resolve("/"); got != "/" || err != nil {
		t.Errorf("/ leads to %q, %v", got, err)
	}
}
