package mounts

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keepersOf gives the holders of Keepers as text.
func keepersOf(t *testing.T, m Mount) string {
	t.Helper()
	holders, err := Keepers(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, h := range holders {
		all = append(all, h.String())
	}
	return strings.Join(all, "; ")
}

// start runs a command until the test ends, and waits for one line from the command.
func start(t *testing.T, name string, args ...string) int {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir, c.Stderr = "/", os.Stderr
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
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return c.Process.Pid
}

// bind shows path at another place, made by mk there, until the test ends.
func bind(t *testing.T, path, at string) string {
	t.Helper()
	if err := unix.Mount(path, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// TestKeepers: every keeper of a file system is found and named before the unmount.
func TestKeepers(t *testing.T) {
	const wait = "echo ready; read wait"
	for name, keep := range map[string]func(t *testing.T, m Mount) string{
		"nothing": func(*testing.T, Mount) string { return "" },
		"bind mount of a directory": func(t *testing.T, m Mount) string {
			return "the kernel uses bind mount " + bind(t, m.Mountpoint+"/dir", t.TempDir())
		},
		"bind mount of a file": func(t *testing.T, m Mount) string {
			at := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(at, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return "the kernel uses bind mount " + bind(t, m.Mountpoint+"/file", at)
		},
		"another namespace": func(t *testing.T, m Mount) string {
			pid := start(t, "unshare", "--mount", "--propagation", "private", "sh", "-c", wait)
			return fmt.Sprintf("(pid %d) uses %s in a mount namespace of its own", pid, m.Mountpoint)
		},
		"a chroot in another namespace": func(t *testing.T, m Mount) string {
			jail := t.TempDir()
			for _, dir := range []string{"bin", "lib", "lib64", "usr"} {
				if err := os.Mkdir(filepath.Join(jail, dir), 0o755); err != nil {
					t.Fatal(err)
				}
				bind(t, "/"+dir, filepath.Join(jail, dir))
			}
			pid := start(t, "unshare", "--mount", "--propagation", "private", "chroot", jail, "sh", "-c", wait)
			return fmt.Sprintf("(pid %d) uses %s in a mount namespace of its own", pid, m.Mountpoint)
		},
		"a namespace without a process": func(t *testing.T, m Mount) string {
			boundNamespace(t)
			return "bind mount " + m.Mountpoint + " in a mount namespace without a process, mnt:["
		},
		"a tree that lies nowhere": func(t *testing.T, m Mount) string {
			fd, err := unix.OpenTree(unix.AT_FDCWD, m.Mountpoint+"/dir", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			return fmt.Sprintf("(pid %d) uses descriptor %d of a mount of it that lies nowhere", os.Getpid(), fd)
		},
		"a file of a mount that lies nowhere": func(t *testing.T, m Mount) string {
			f, err := os.Open(m.Mountpoint + "/file")
			if err == nil {
				err = unix.Unmount(m.Mountpoint, unix.MNT_DETACH)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			return fmt.Sprintf("(pid %d) uses ", os.Getpid())
		},
		"a file of a bind mount that lies nowhere": func(t *testing.T, m Mount) string {
			at := bind(t, m.Mountpoint+"/dir", t.TempDir())
			pid := start(t, "sh", "-c", "exec 3>"+at+"/open; umount -il "+at+"; "+wait)
			return fmt.Sprintf("(pid %d) uses /open of a mount of it that lies nowhere", pid)
		},
		"a working directory in a bind mount that lies nowhere": func(t *testing.T, m Mount) string {
			at := bind(t, m.Mountpoint+"/dir", t.TempDir())
			pid := start(t, "sh", "-c", "cd "+at+"; umount -il "+at+"; "+wait)
			return fmt.Sprintf("(pid %d) uses / of a mount of it that lies nowhere", pid)
		},
		"a mapping by a bind mount that lies nowhere": func(t *testing.T, m Mount) string {
			at := bind(t, m.Mountpoint, t.TempDir())
			if err := os.Truncate(at+"/file", 4096); err != nil {
				t.Fatal(err)
			}
			mapFile(t, at+"/file")
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("(pid %d) uses /file", os.Getpid())
		},
		"overlayfs": func(t *testing.T, m Mount) string {
			at := t.TempDir()
			options := "lowerdir=" + m.Mountpoint + "/dir:" + t.TempDir()
			if err := unix.Mount("none", at, "overlay", 0, options); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
			return "the kernel uses overlay mount " + at
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := tmpfs(t)
			if err := errors.Join(os.Mkdir(m.Mountpoint+"/dir", 0o755), os.WriteFile(m.Mountpoint+"/file", nil, 0o600)); err != nil {
				t.Fatal(err)
			}
			want := keep(t, m)
			got := keepersOf(t, m)
			if (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("keepers are %q, want %q", got, want)
			}
		})
	}
}

// mapFile maps the file until the test ends, with no descriptor open.
func mapFile(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
}

// TestForeignID: the id of a mount may belong to another mount after the end of the first.
func TestForeignID(t *testing.T) {
	foreign := tmpfs(t)
	pid := start(t, "sh", "-c", "exec 3>'"+foreign.Mountpoint+"/file'; echo ready; read wait")
	gone := foreign
	gone.Device, gone.Source, gone.Mountpoint = "0:1000000", "/gone", "/gone"
	for _, h := range holdersOf(t, gone) {
		if h.PID == pid {
			t.Errorf("a process of another file system is a holder: %v", h)
		}
	}
	if gone.Is(foreign) || !foreign.Is(foreign) {
		t.Error("a mount is told by its id alone")
	}
	if err := Remount(t.Context(), Mount{ID: foreign.ID + 1, Mountpoint: foreign.Mountpoint}, []string{"ro"}); !errors.Is(err, ErrNotMounted) {
		t.Errorf("remount of a mount in whose place another one is: %v", err)
	}
}

// TestReached: however the list is ordered, each slave of a slave is found.
func TestReached(t *testing.T) {
	t.Parallel()
	chain := []Mount{{Master: 3, Shared: 4}, {Master: 2, Shared: 3}, {Shared: 7}, {Master: 1, Shared: 2}, {Master: 4}, {Master: 7, Shared: 8}}
	got := reached([]namespace{{all: chain}}, 1)
	if want := map[int]bool{1: true, 2: true, 3: true, 4: true}; !maps.Equal(got, want) {
		t.Errorf("reached %v, want %v", got, want)
	}
}

// boundNamespace makes a private mount namespace without a process, bound to a path, and gives the
// namespace's id.
func boundNamespace(t *testing.T) (id string) {
	t.Helper()
	// The namespace file lies on a mount without a copy in the namespace itself.
	dir := t.TempDir()
	bind(t, dir, dir)
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "ns")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Linux binds only namespaces with a greater number than our own. Numbers are given out by
	// CPU, some dozens at a time.
	err := error(unix.EINVAL)
	for try := 0; errors.Is(err, unix.EINVAL) && try < 500; try++ {
		c := exec.Command("unshare", "--mount="+file, "--propagation", "private", "umount", "--lazy", dir)
		var out []byte
		if out, err = c.CombinedOutput(); strings.Contains(string(out), "Invalid argument") {
			err = unix.EINVAL
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(file, unix.MNT_DETACH) })
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	m, _ := uppermost(all, file)
	return m.Root
}

// TestBoundNamespaces: a kernel without a list of namespaces (before Linux 6.12) still shows
// namespaces bound to a path.
func TestBoundNamespaces(t *testing.T) {
	m := tmpfs(t)
	id := boundNamespace(t)
	own, err := List()
	if err != nil {
		t.Fatal(err)
	}
	l := lister{known: make(map[string]int), of: make(map[int]string)}
	l.add(namespace{id: "ours", pid: os.Getpid(), all: own})
	if err := l.bound(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !l.has(id) {
		t.Fatalf("%s is not among %v", id, l.known)
	}
	if seen, ok := uppermost(l.spaces[l.known[id]].all, m.Mountpoint); !ok || seen.Device != m.Device {
		t.Errorf("the copy of %s in it is not seen", m.Mountpoint)
	}
}

// TestGoesAlong: a copy of the mount in a namespace that receives the unmount, such as the sandbox
// of a systemd service, goes with the mount and holds nothing. A copy below another mount stays.
func TestGoesAlong(t *testing.T) {
	shared := t.TempDir()
	bind(t, shared, shared)
	if err := unix.Mount("", shared, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		propagation, then string
		goes              bool
	}{
		"a slave":                  {"slave", "", true},
		"a peer":                   {"unchanged", "", true},
		"a slave of a slave":       {"slave", "mount --make-rshared /; exec unshare --mount --propagation slave sh -c 'echo ready; read wait'", true},
		"private":                  {"private", "", false},
		"a slave with one upon it": {"slave", "mount -t tmpfs none $M/dir; ", false},
	} {
		t.Run(name, func(t *testing.T) {
			at := filepath.Join(shared, strings.ReplaceAll(name, " ", "-"))
			if err := errors.Join(os.Mkdir(at, 0o755), unix.Mount("none", at, "tmpfs", 0, "size=1m"), os.Mkdir(at+"/dir", 0o755)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
			t.Setenv("M", at)
			pid := start(t, "unshare", "--mount", "--propagation", c.propagation, "sh", "-c", c.then+"echo ready; read wait")
			all, err := List()
			if err != nil {
				t.Fatal(err)
			}
			m, _ := uppermost(all, at)
			if got := keepersOf(t, m); (got == "") != c.goes {
				t.Errorf("keepers are %q; the copy goes along: %t", got, c.goes)
			}
			if err := Unmount(t.Context(), m, false); err != nil {
				t.Fatal(err)
			}
			info, err := os.ReadFile(procPath(pid, "mountinfo"))
			if err != nil {
				t.Fatal(err)
			}
			if left := strings.Contains(string(info), " "+at+" "); left == c.goes {
				t.Errorf("the kernel left the copy: %t", left)
			}
		})
	}
}

// TestHoldersOfCopies: a process with files of the file system at another place is found, and so
// is one with a file open only in an io_uring.
func TestHoldersOfCopies(t *testing.T) {
	m := tmpfs(t)
	if err := errors.Join(os.Mkdir(m.Mountpoint+"/dir", 0o755), os.WriteFile(m.Mountpoint+"/dir/file", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	at := bind(t, m.Mountpoint+"/dir", t.TempDir())
	for _, script := range []string{"exec 3<" + at + "/file", "cd " + at} {
		if h, ok := holderOf(t, m, script); !ok || !strings.HasPrefix(h.What, at) {
			t.Errorf("%s: holder is %+v (found: %t)", script, h, ok)
		}
	}
	ring := registerFile(t, m.Mountpoint+"/dir/file")
	defer unix.Close(ring)
	want := Holder{PID: os.Getpid(), What: m.Mountpoint + "/dir/file by io_uring"}
	for _, h := range holdersOf(t, m) {
		if h.PID == want.PID && h.What == want.What {
			return
		}
	}
	t.Errorf("holders are %v, want one of %q", holdersOf(t, m), want.What)
}

// registerFile gives an io_uring with the file registered. The descriptor of the file is closed.
func registerFile(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var params [120]byte // struct io_uring_params
	ring, _, errno := syscall.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno == unix.ENOSYS || errno == unix.EPERM {
		t.Skip("this kernel has no io_uring")
	}
	if errno != 0 {
		t.Fatal(errno)
	}
	fds := [1]int32{int32(f.Fd())}
	const registerFiles = 2
	if _, _, errno := syscall.Syscall6(unix.SYS_IO_URING_REGISTER, ring, registerFiles, uintptr(unsafe.Pointer(&fds[0])), 1, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
	return int(ring)
}
