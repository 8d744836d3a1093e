package ability

import (
	"errors"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// step tries one ability in an empty place, and leaves no descriptor open.
type step struct {
	ability Ability
	try     func(*place) (detail string, err error)
}

func steps() []step {
	return []step{
		{Exclusive, plainly(tryExclusive)},
		{Replace, withFile(tryReplace)},
		{Sync, withFile(trySync)},
		{Extend, withFile(tryExtend)},
		{Numbers, withFile(tryNumbers)},
		{Renamed, withFile(tryRenamed)},
		{Locks, withFile(tryLocks)},
		{Link, withFile(tryLink)},
		{LinkNumber, withFile(tryLinkNumber)},
		{FirstName, withFile(tryFirstName)},
		{Unlinked, withFile(tryUnlinked)},
		{Nameless, plainly(tryNameless)},
		{NoReplace, withFile(tryNoReplace)},
		{Exchange, withFile(tryExchange)},
		{Punch, withFile(tryPunch)},
		{Holes, withFile(tryHoles)},
		{Direct, tryDirect},
		{Handles, withFile(tryHandles)},
		{Births, withFile(tryBirths)},
		{Xattrs, withFile(tryXattrs)},
		{Cases, withFile(tryCases)},
	}
}

func plainly(try func(*place) error) func(*place) (string, error) {
	return func(p *place) (string, error) { return "", try(p) }
}

// withFile tries with a new file called first, open for reading and writing.
func withFile(try func(p *place, fd int) error) func(*place) (string, error) {
	return plainly(func(p *place) error {
		fd, err := p.make(first)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return try(p, fd)
	})
}

// withPath gives try an O_PATH descriptor of the open file, too.
func withPath(fd int, try func(path int) error) error {
	path, err := pathOf(fd)
	if err != nil {
		return err
	}
	defer unix.Close(path)
	return try(path)
}

// withSecond makes the file second.
func (p *place) withSecond(try func(fd int) error) error {
	fd, err := p.make(second)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return try(fd)
}

// refuses is nil for the error want, which must come; for no error, an error that says otherwise.
func refuses(err, want error, otherwise string) error {
	switch {
	case err == nil:
		return errors.New(otherwise)
	case errors.Is(err, want):
		return nil
	default:
		return err
	}
}

func tryExclusive(p *place) error {
	fd, err := p.make(first)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	again, err := p.make(first)
	if err == nil {
		unix.Close(again)
	}
	return refuses(err, unix.EEXIST, "a name that is there was opened as new")
}

func tryReplace(p *place, fd int) error {
	return p.withSecond(func(int) error {
		if err := unix.Renameat(p.fd, first, p.fd, second); err != nil {
			return err
		}
		return p.holds(second, first)
	})
}

// holds is nil if name is the file that make made as made.
func (p *place) holds(name, made string) error {
	fd, err := unix.Openat(p.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return leads(fd, made)
}

func trySync(p *place, fd int) error {
	for _, err := range []error{unix.Fsync(fd), unix.Fdatasync(fd), unix.Fsync(p.fd)} {
		if err != nil {
			return err
		}
	}
	return nil
}

func tryExtend(_ *place, fd int) error {
	const size = 64 << 10
	if err := unix.Ftruncate(fd, size); err != nil {
		return err
	}
	b := make([]byte, size+1)
	n, err := unix.Pread(fd, b, 0)
	switch {
	case err != nil:
		return err
	case n != size || string(b[:len(first)]) != first || !layout.AllZero(b[len(first):]):
		return errors.New("other bytes were read")
	}
	return nil
}

// tryNumbers also checks a named file's count of names (st_nlink). A file with none is taken for
// removed, and would change its form at no name.
func tryNumbers(p *place, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Nlink == 0 {
		return errors.New("a file with a name has no links")
	}
	if err := p.numbered(first, fd); err != nil {
		return err
	}
	if err := unix.Renameat(p.fd, first, p.fd, second); err != nil {
		return err
	}
	return p.numbered(second, fd)
}

func tryRenamed(p *place, fd int) error {
	return withPath(fd, func(path int) error {
		if err := unix.Renameat(p.fd, first, p.fd, second); err != nil {
			return err
		}
		return errors.Join(leads(path, first), leads(fd, first))
	})
}

// isHeld reports whether a lock was refused because another has it. POSIX lets a file system say so
// in two ways.
func isHeld(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) }

func tryLocks(p *place, fd int) error {
	other, err := unix.Openat(p.fd, first, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(other)
	flock := func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }
	extent := func(fd int) error {
		return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 1, Len: 1})
	}
	for _, lock := range []func(int) error{flock, extent} {
		if err := lock(fd); err != nil {
			return err
		}
		if err := lock(other); !isHeld(err) {
			return refuses(err, unix.EAGAIN, "two have one lock")
		}
		if err := unix.Flock(fd, unix.LOCK_UN); err != nil { // NFS takes both kinds for one
			return err
		}
	}
	return nil
}
