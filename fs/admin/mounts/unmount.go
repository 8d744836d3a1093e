package mounts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// BusyError: the mount is in use and stays.
type BusyError struct {
	Mountpoint string
	Holders    []Holder
}

// maxNamed bounds how many holders the error names.
const maxNamed = 5

// Error names the holders.
func (e *BusyError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is busy", e.Mountpoint)
	for i, h := range e.Holders {
		if i == maxNamed {
			fmt.Fprintf(&b, "; and %d more", len(e.Holders)-maxNamed)
			break
		}
		if i == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		b.WriteString(h.String())
	}
	return b.String()
}

// Unwrap is EBUSY.
func (e *BusyError) Unwrap() error { return unix.EBUSY }

// Unmount ends m: a BusyError while it is in use. lazy takes it out of sight at once and
// lets it end with its last user. Without root, fusermount3 does it.
func Unmount(m Mount, lazy bool) error {
	err := unmount(m.Mountpoint, lazy)
	if errors.Is(err, unix.EBUSY) {
		return &BusyError{Mountpoint: m.Mountpoint, Holders: Holders(m)}
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", m.Mountpoint, err)
	}
	return nil
}

func unmount(mountpoint string, lazy bool) error {
	if os.Geteuid() == 0 {
		flags := unix.UMOUNT_NOFOLLOW
		if lazy {
			flags |= unix.MNT_DETACH
		}
		return unix.Unmount(mountpoint, flags)
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	cmd := exec.Command("fusermount3", append(args, "--", mountpoint)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case strings.Contains(string(out), "busy"): // its exit code is 1 for everything
		return unix.EBUSY
	case len(out) > 0:
		return errors.New(strings.TrimSpace(string(out)))
	}
	return err
}
