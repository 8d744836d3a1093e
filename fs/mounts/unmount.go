package mounts

import (
	"bytes"
	"context"
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

// unseen stands in an error in place of unknown holders.
const unseen = "what uses it is not to be seen from here: a process of another user, or an open file that is on its way through a socket"

// Error names the holders.
func (e *BusyError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is busy", e.Mountpoint)
	if len(e.Holders) == 0 {
		b.WriteString(": " + unseen)
	}
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

// Unmount ends m. While m is in use, the error is a *BusyError. lazy takes m out of sight at once,
// and m ends with its last user. ctx bounds the search for the users.
func Unmount(ctx context.Context, m Mount, lazy bool) error {
	err := UnmountPath(m.Mountpoint, lazy)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	holders, err := Holders(ctx, m)
	if err != nil {
		return errors.Join(&BusyError{Mountpoint: m.Mountpoint}, err)
	}
	return &BusyError{Mountpoint: m.Mountpoint, Holders: holders}
}

// UnmountPath ends the uppermost mount at mountpoint. While the mount is in use, the error is
// EBUSY. A user without the right to unmount uses the setuid helper fusermount3, which made the
// mount.
func UnmountPath(mountpoint string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(mountpoint, flags)
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		err = fusermount(mountpoint, lazy)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", mountpoint, err)
	}
	return nil
}

func fusermount(mountpoint string, lazy bool) error {
	flag := "-u"
	if lazy {
		flag = "-uz"
	}
	cmd := exec.Command("fusermount3", flag, "--", mountpoint)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case bytes.Contains(out, []byte("busy")):
		return unix.EBUSY // the helper reports EBUSY only as text
	case len(out) > 0:
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return err
}
