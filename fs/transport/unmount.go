package transport

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Unmount does not use go-fuse's, which tries five times before it says EBUSY.
func (s *goFuse) Unmount(lazy bool) error {
	select {
	case <-s.done:
		return nil
	default:
	}
	err := unmount(s.mountpoint, lazy)
	if err != nil {
		return fmt.Errorf("unmount %s: %w", s.mountpoint, err)
	}
	return nil
}

func unmount(mountpoint string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(mountpoint, flags)
	if !errors.Is(err, unix.EPERM) || os.Geteuid() == 0 {
		return err
	}
	return fusermount(mountpoint, lazy)
}

// fusermount unmounts by the setuid helper that mounted for this user.
func fusermount(mountpoint string, lazy bool) error {
	flag := "-u"
	if lazy {
		flag = "-uz"
	}
	bin, err := exec.LookPath("fusermount3")
	if err != nil {
		return err
	}
	out, err := exec.Command(bin, flag, "--", mountpoint).CombinedOutput()
	switch {
	case err == nil:
		return nil
	case bytes.Contains(out, []byte("busy")):
		return unix.EBUSY // the helper tells by its text alone
	default:
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
}
