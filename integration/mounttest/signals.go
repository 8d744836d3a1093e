package mounttest

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Uninterrupted repeats a call interrupted by a signal. Go's scheduler sends some signals, and a
// call on a mount waiting for a key or for a lock then ends with EINTR, as it should.
func Uninterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Open is open(2), uninterrupted.
func Open(path string, flags int, mode uint32) (fd int, err error) {
	err = Uninterrupted(func() error {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

// OpenErr opens and closes a file and returns open's error.
func OpenErr(path string, flags int) error {
	fd, err := Open(path, flags, 0o644)
	if err != nil {
		return err
	}
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}
