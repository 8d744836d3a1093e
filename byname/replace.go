package byname

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Replace puts b at name in dir. After a crash the old file or the new one is there; after
// the return the new one is there for good. Callers exclude each other, so the temporary has one
// fixed name, and a leftover of a crash is removed here. The umask has no effect on mode.
func Replace(dir int, name string, b []byte, mode uint32) error {
	temp := name + ".new"
	if err := unix.Unlinkat(dir, temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "remove", Path: temp, Err: err}
	}
	if err := writeNew(dir, temp, b, mode); err != nil {
		// A leftover would not harm, but the next to look would wonder.
		unix.Unlinkat(dir, temp, 0)
		return err
	}
	if err := unix.Renameat(dir, temp, dir, name); err != nil {
		unix.Unlinkat(dir, temp, 0)
		return &os.LinkError{Op: "rename", Old: temp, New: name, Err: err}
	}
	if err := unix.Fsync(dir); err != nil {
		return &os.PathError{Op: "sync directory of", Path: name, Err: err}
	}
	return nil
}

// writeNew makes the file name in dir with the content b. The content is durable, the name is not
// yet.
func writeNew(dir int, name string, b []byte, mode uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return &os.PathError{Op: "create", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(os.FileMode(mode))
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
