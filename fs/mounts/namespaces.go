package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// namespace is one mount namespace of this host, with its mounts.
type namespace struct {
	id   string // the link in /proc: "mnt:[4026531841]"
	pid  int    // a process in the namespace; 0: none was seen
	name string // command name of process pid
	all  []Mount
	tops map[string]Mount // the uppermost by mountpoint
}

// covering gives the mount into which path leads. path is absolute and clean.
func (n namespace) covering(path string) (Mount, bool) {
	for {
		if m, ok := n.tops[path]; ok || path == "/" || !filepath.IsAbs(path) {
			return m, ok
		}
		path = filepath.Dir(path)
	}
}

// namespaces gives the mount namespaces of this host, our own first, and the namespace of each
// process. A namespace without a process may be kept by a bind to a path or by an open descriptor.
// From Linux 6.12 on, all of those are found; on older kernels, only the bound ones. Namespaces
// closed to this user are left out.
func namespaces(ctx context.Context) (spaces []namespace, of map[int]string, err error) {
	l := lister{known: make(map[string]int), of: make(map[int]string)}
	own, err := List()
	if err != nil {
		return nil, nil, err
	}
	id, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, nil, err
	}
	l.add(namespace{id: id, pid: os.Getpid(), all: own})
	pids, err := processes()
	if err != nil {
		return nil, nil, err
	}
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		l.process(pid)
	}
	if err := l.empty(ctx); err != nil {
		return nil, nil, err
	}
	return l.spaces, l.of, nil
}

// processes gives the ids of all processes that this process can see.
func processes() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// procPath is a path below /proc/PID.
func procPath(pid int, name string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + name
}

// lister collects namespaces.
type lister struct {
	spaces []namespace
	known  map[string]int // index in spaces; -1: not to be looked into so far
	of     map[int]string // id by process
}

func (l *lister) add(s namespace) {
	l.known[s.id] = len(l.spaces)
	l.spaces = append(l.spaces, s)
}

func (l *lister) has(id string) bool {
	at, known := l.known[id]
	return known && at >= 0
}

// process adds the namespace of a process, unless the process ends meanwhile.
func (l *lister) process(pid int) {
	id, err := os.Readlink(procPath(pid, "ns/mnt"))
	if err != nil {
		return
	}
	l.of[pid] = id
	if l.has(id) {
		return
	}
	l.known[id] = -1
	all, err := l.listOf(pid)
	if err != nil {
		return
	}
	l.add(namespace{id: id, pid: pid, name: commandName(procPath(pid, "")), all: all})
}

// listOf gives the mounts in the namespace of a process. A process after chroot lists only mounts
// below its root; then listIn lists the mounts from inside the namespace.
func (l *lister) listOf(pid int) ([]Mount, error) {
	if root, err := os.Readlink(procPath(pid, "root")); err == nil && root != "/" {
		if fd, err := unix.Open(procPath(pid, "ns/mnt"), unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			defer unix.Close(fd)
			if all, err := listIn(fd); err == nil {
				return all, nil
			}
		}
	}
	f, err := os.Open(procPath(pid, "mountinfo"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f)
}

// empty adds the namespaces without a process in sight.
func (l *lister) empty(ctx context.Context) error {
	own, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("mount namespaces: %w", err)
	}
	defer unix.Close(own)
	for _, step := range []uint{nextNamespace, previousNamespace} {
		err := l.follow(ctx, own, step)
		if isNoStep(err) {
			return l.bound(ctx)
		}
		if err != nil && !errors.Is(err, unix.EPERM) { // without the right to, none is seen
			return err
		}
	}
	return nil
}

// NS_MNT_GET_NEXT and NS_MNT_GET_PREV of ioctl_nsfs(2) lead from one mount namespace to the next
// (linux/nsfs.h, since Linux 6.12).
const (
	nextNamespace     = 0x8010b70b
	previousNamespace = 0x8010b70c
)

// isNoStep reports whether err means a kernel without the two requests.
func isNoStep(err error) bool { return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) }

// follow adds all namespaces on one side of the namespace that is open as from.
func (l *lister) follow(ctx context.Context, from int, step uint) error {
	at := from
	defer func() {
		if at != from {
			unix.Close(at)
		}
	}()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		next, err := unix.IoctlRetInt(at, step)
		if errors.Is(err, unix.ENOENT) { // the last one
			return nil
		}
		if err != nil {
			return fmt.Errorf("mount namespaces: %w", err)
		}
		if at != from {
			unix.Close(at)
		}
		at = next
		l.visit(at)
	}
}

// bound adds the namespaces bound to a path, as by unshare --mount=FILE.
func (l *lister) bound(ctx context.Context) error {
	for i := 0; i < len(l.spaces); i++ { // the loop also visits the namespaces added by the loop
		for _, m := range l.spaces[i].all {
			if err := ctx.Err(); err != nil {
				return err
			}
			if m.Type != "nsfs" || !strings.HasPrefix(m.Root, "mnt:") || l.has(m.Root) || l.spaces[i].pid == 0 {
				continue
			}
			path := filepath.Join(procPath(l.spaces[i].pid, "root"), m.Mountpoint)
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
			if err != nil {
				continue
			}
			l.visit(fd)
			unix.Close(fd)
		}
	}
	return nil
}

// visit adds the namespace open as fd, provided that fd is a mount namespace. The link in /proc is
// no use here: for a bound namespace, the link is the path of the bind.
func (l *lister) visit(fd int) {
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNS {
		return
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return
	}
	id := fmt.Sprintf("mnt:[%d]", st.Ino)
	if l.has(id) {
		return
	}
	if all, err := listIn(fd); err == nil {
		l.add(namespace{id: id, all: all})
	}
}

// listIn lists the mounts of the namespace open as fd from inside: a thread enters the namespace,
// and ends afterwards.
func listIn(fd int) (all []Mount, err error) {
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(proc)
	onThread(func() {
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		if err = unix.Setns(fd, unix.CLONE_NEWNS); err != nil {
			return
		}
		var info int
		if info, err = unix.Openat(proc, "thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return
		}
		f := os.NewFile(uintptr(info), "mountinfo")
		defer f.Close()
		all, err = parse(f)
	})
	return all, err
}

// onThread runs f on a thread that ends with f. The main thread of the process must not be that
// thread, since the main thread lives on and /proc/self shows its namespace: the main thread is
// kept busy meanwhile.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			onThread(f)
			return
		}
		f() // never unlocked: no other goroutine may run in the namespace of f
	}()
	<-done
}
