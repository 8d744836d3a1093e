package ability

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"vmcryptfs/byname"
	"vmcryptfs/layout"

	"golang.org/x/sys/unix"
)

// link gives the open file fd the name second.
func (p *place) link(fd int) error {
	return unix.Linkat(unix.AT_FDCWD, byname.ProcPath(fd), p.fd, second, unix.AT_SYMLINK_FOLLOW)
}

func tryLink(p *place, fd int) error {
	if err := p.link(fd); err != nil {
		return err
	}
	return p.holds(second, first)
}

func tryLinkNumber(p *place, fd int) error {
	if err := p.link(fd); err != nil {
		return err
	}
	return p.numbered(second, fd)
}

// tryFirstName gives a new file its name as a datastore does where all is well: by a link, after
// which the first name goes. While the file is open, a FUSE file system that goes by paths keeps
// the first name as a hidden one, as NFS does.
func tryFirstName(p *place, fd int) error {
	return withPath(fd, func(path int) error {
		if err := p.link(fd); err != nil {
			return err
		}
		if err := unix.Unlinkat(p.fd, first, 0); err != nil {
			return err
		}
		if err := p.alone(second); err != nil {
			return err
		}
		return leads(path, first)
	})
}

// alone is nil if name is the only one of its file: FUSE file systems hide a name that is removed
// while the file is open under another.
func (p *place) alone(name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(p.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	names, err := listNames(p.fd)
	if err == nil && len(names) != 1 {
		err = errors.New("a name that was removed is kept as another")
	}
	return err
}

func tryUnlinked(p *place, fd int) error {
	return withPath(fd, func(path int) error {
		if err := unix.Unlinkat(p.fd, first, 0); err != nil {
			return err
		}
		_, err := numberOf(path)
		return errors.Join(err, leads(path, first), leads(fd, first))
	})
}

func tryNameless(p *place) error {
	fd, err := unix.Openat(p.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Pwrite(fd, []byte(first), 0); err != nil {
		return err
	}
	return tryLink(p, fd)
}

func tryNoReplace(p *place, _ int) error {
	if err := unix.Renameat2(p.fd, first, p.fd, second, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	fd, err := p.make(first)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Renameat2(p.fd, first, p.fd, second, unix.RENAME_NOREPLACE)
	return refuses(err, unix.EEXIST, "a file was replaced")
}

func tryExchange(p *place, _ int) error {
	return p.withSecond(func(int) error {
		if err := unix.Renameat2(p.fd, first, p.fd, second, unix.RENAME_EXCHANGE); err != nil {
			return err
		}
		return errors.Join(p.holds(first, second), p.holds(second, first))
	})
}

// big is the size in bytes of a file whose first half, or all, is a hole.
const big = 256 << 10

func tryPunch(_ *place, fd int) error {
	b := bytes.Repeat([]byte{1}, big)
	if _, err := unix.Pwrite(fd, b, 0); err != nil {
		return err
	}
	if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, big/2); err != nil {
		return err
	}
	n, err := unix.Pread(fd, b, 0)
	switch {
	case err != nil:
		return err
	case n != big || !layout.AllZero(b[:big/2]) || b[big/2] != 1:
		return errors.New("other bytes were read")
	}
	return nil
}

func tryHoles(_ *place, fd int) error {
	if err := unix.Ftruncate(fd, big); err != nil {
		return err
	}
	at, err := unix.Seek(fd, 0, unix.SEEK_HOLE)
	if err == nil && at >= big {
		err = errors.New("a hole reads as data")
	}
	return err
}

// tryDirect writes a block of 4096 bytes around the page cache. The detail is the alignment in
// bytes required by the file system, where known.
func tryDirect(p *place) (string, error) {
	fd, err := p.make(first)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	direct, err := unix.Openat(p.fd, first, unix.O_RDWR|unix.O_DIRECT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(direct)
	const block = 4096
	b := make([]byte, 2*block)
	b = b[block-int(uintptr(unsafe.Pointer(&b[0]))%block):][:block]
	if _, err := unix.Pwrite(direct, b, 0); err != nil {
		return "", err
	}
	var st unix.Statx_t
	err = unix.Statx(direct, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 || st.Dio_offset_align == 0 {
		return "", nil
	}
	return fmt.Sprintf("aligned to %d bytes", st.Dio_offset_align), nil
}

func tryHandles(p *place, _ int) error {
	_, _, err := unix.NameToHandleAt(p.fd, first, 0)
	return err
}

func tryBirths(_ *place, fd int) error {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st)
	if err == nil && st.Mask&unix.STATX_BTIME == 0 {
		err = errors.New("none is told")
	}
	return err
}

func tryXattrs(_ *place, fd int) error {
	return unix.Fsetxattr(fd, "user.vmcryptfs", []byte("test"), 0)
}

func tryCases(p *place, _ int) error {
	var st unix.Stat_t
	err := unix.Fstatat(p.fd, shouted, &st, unix.AT_SYMLINK_NOFOLLOW)
	return refuses(err, unix.ENOENT, "they are one")
}
