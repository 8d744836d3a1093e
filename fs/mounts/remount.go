package mounts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"vmcryptfs/byname"

	"golang.org/x/sys/unix"
)

// attribute is a pair of mount options that the kernel keeps: on sets flag of mount(2), off clears
// the same flag.
type attribute struct {
	on, off string
	flag    uintptr
}

// attributes gives the attributes that mount(2) sets anew at each remount. The kernel keeps the
// mode of access times unless a remount names one.
func attributes() []attribute {
	return []attribute{
		{"ro", "rw", unix.MS_RDONLY},
		{"nosuid", "suid", unix.MS_NOSUID},
		{"nodev", "dev", unix.MS_NODEV},
		{"noexec", "exec", unix.MS_NOEXEC},
		{"nosymfollow", "symfollow", unix.MS_NOSYMFOLLOW},
	}
}

// ReadOnlyAll reports whether the file system of m is read-only, at every place.
func (m Mount) ReadOnlyAll() bool { return hasOption(m.Super, "ro") }

// Attributes gives one option for each attribute of m that a remount changes, except ro and rw:
// the option itself or its opposite ("nosuid" or "suid").
func (m Mount) Attributes() []string {
	var words []string
	for _, a := range attributes() {
		switch {
		case a.on == "ro":
		case hasOption(m.Options, a.on):
			words = append(words, a.on)
		default:
			words = append(words, a.off)
		}
	}
	return words
}

func hasOption(list, option string) bool {
	return slices.Contains(strings.Split(list, ","), option)
}

// Remount changes options of m ("ro", "rw", "nosuid", "suid", …). Of a pair the later one counts,
// and all other options stay. Where open files keep m from becoming read-only, the error is a
// *BusyError with the writers. ErrNotMounted: another mount has taken the place of m.
func Remount(ctx context.Context, m Mount, options []string) error {
	flags := uintptr(unix.MS_REMOUNT)
	for _, a := range attributes() {
		set := hasOption(m.Options, a.on) || a.on == "ro" && m.ReadOnlyAll()
		for _, option := range options {
			switch option {
			case a.on:
				set = true
			case a.off:
				set = false
			}
		}
		if set {
			flags |= a.flag
		}
	}
	err := remountRoot(m, flags)
	if errors.Is(err, unix.EBUSY) {
		writers, findErr := Writers(ctx, m)
		err = errors.Join(&BusyError{Mountpoint: m.Mountpoint, Holders: writers}, findErr)
	}
	if err != nil {
		return fmt.Errorf("remount %s: %w", m.Mountpoint, err)
	}
	return nil
}

// remountRoot calls mount(2) for m alone. A path could meet another mount, made meanwhile.
func remountRoot(m Mount, flags uintptr) error {
	fd, err := unix.Open(m.Mountpoint, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	id, err := IDOf(fd)
	if err != nil {
		return err
	}
	if id != m.ID {
		return fmt.Errorf("another mount is there by now: %w", ErrNotMounted)
	}
	return unix.Mount("", byname.ProcPath(fd), "", flags, "")
}

// Writers finds the processes that keep m's file system from becoming read-only: those with a file
// open for writing, or with a removed file open. Limits and errors are those of Holders.
func Writers(ctx context.Context, m Mount) ([]Holder, error) {
	s, err := look(ctx, m)
	if err != nil {
		return nil, err
	}
	return s.users(ctx, writing)
}
