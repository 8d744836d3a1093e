package ability

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"vmcryptfs/byname"

	"golang.org/x/sys/unix"
)

// Names of the files in a place. A probe makes, and removes, no other files there.
const (
	first   = "first"
	second  = "second"
	shouted = "FIRST"
)

// place is the directory of one probe. The probe has the directory locked, so that other probes
// leave the directory alone.
type place struct {
	parent int // the caller's
	name   string
	fd     int
}

// newPlace makes a place in the directory parent, with a name that begins with prefix. Another
// probe removes a place that is not locked yet; then newPlace makes a second one.
func newPlace(parent int, prefix string) (*place, error) {
	p, err := tryPlace(parent, prefix)
	if errors.Is(err, unix.ENOENT) {
		p, err = tryPlace(parent, prefix)
	}
	return p, err
}

func tryPlace(parent int, prefix string) (*place, error) {
	p := &place{parent: parent, name: prefix + byname.Fresh(), fd: -1}
	if err := unix.Mkdirat(parent, p.name, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for the test of BACKING: %w", err)
	}
	fd, err := openPlace(parent, p.name)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the directory for the test of BACKING: %w", err), p.remove())
	}
	p.fd = fd
	_ = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) // without locks, removeLeftovers cannot tell a live place
	var st unix.Stat_t
	if err := unix.Fstatat(parent, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("look for the directory for the test of BACKING: %w", err)
	}
	return p, nil
}

func openPlace(parent int, name string) (int, error) {
	return unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// remove removes the place with its files.
func (p *place) remove() error {
	if p.fd >= 0 {
		err := p.clean()
		unix.Close(p.fd) // nothing was written by it
		p.fd = -1
		if err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(p.parent, p.name, unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("remove the directory of the test of BACKING: %w", err)
	}
	return nil
}

// clean removes the files of a step.
func (p *place) clean() error {
	for _, name := range []string{first, second, shouted} {
		if err := unix.Unlinkat(p.fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove a file of the test of BACKING: %w", err)
		}
	}
	return nil
}

// removeLeftovers removes the places of probes that a crash ended. A place that cannot be removed
// stays, hidden and small.
func removeLeftovers(parent int, prefix string) {
	names, _ := listNames(parent)
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		fd, err := openPlace(parent, name)
		if err != nil {
			continue
		}
		if isHeld(unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)) {
			unix.Close(fd)
			continue
		}
		_ = (&place{parent: parent, name: name, fd: fd}).remove()
	}
}

// listNames are the names in a directory.
func listNames(dir int) ([]string, error) {
	fd, err := openPlace(dir, ".")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	return f.Readdirnames(-1)
}

// make makes a file of a few bytes.
func (p *place) make(name string) (int, error) {
	fd, err := unix.Openat(p.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, err
	}
	if _, err := unix.Pwrite(fd, []byte(name), 0); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// pathOf is an O_PATH descriptor of an open file.
func pathOf(fd int) (int, error) {
	return unix.Open(byname.ProcPath(fd), unix.O_PATH|unix.O_CLOEXEC, 0)
}

// leads is nil if fd, open or O_PATH, leads to the file that make made as name.
func leads(fd int, name string) error {
	again, err := unix.Open(byname.ProcPath(fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(again)
	b := make([]byte, len(name)+1)
	n, err := unix.Pread(again, b, 0)
	if err == nil && string(b[:n]) != name {
		err = errOther
	}
	return err
}

// errOther: a descriptor or a name leads to another file, or to other bytes.
var errOther = errors.New("it leads to another file")

func numberOf(fd int) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Ino, err
}

// numbered is nil if name has the inode number of fd.
func (p *place) numbered(name string, fd int) error {
	want, err := numberOf(fd)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(p.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Ino != want {
		return fmt.Errorf("it is %d, and %d by another way", want, st.Ino)
	}
	return nil
}
