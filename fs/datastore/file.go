package datastore

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
)

// openDir opens the directory name, one path element, below fd. A symbolic link
// there is ENOTDIR.
func openDir(fd int, name string) (int, error) {
	dir, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open directory", Path: name, Err: err}
	}
	return dir, nil
}

// readFile reads the regular file name, one path element, in dir. Anything but a regular file at
// the name, or a file longer than limit bytes, gives a *byname.UnfitError.
func readFile(dir int, name string, limit int64) ([]byte, error) {
	return readFitting(dir, name, limit, func(*unix.Stat_t) error { return nil })
}

// readOwn is readFile of a file that only this user or root can have made.
func readOwn(dir int, name string, limit int64) ([]byte, error) {
	return readFitting(dir, name, limit, byname.Owned)
}

// readFitting is readFile of a file whose status fits.
func readFitting(dir int, name string, limit int64, fits func(*unix.Stat_t) error) ([]byte, error) {
	fd, st, err := byname.Open(dir, name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if err := fits(&st); err != nil {
		return nil, err
	}
	if st.Size > limit {
		return nil, &byname.UnfitError{Why: fmt.Sprintf("%d bytes, over %d", st.Size, limit)}
	}
	// The file may have grown since.
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, &byname.UnfitError{Why: fmt.Sprintf("over %d bytes", limit)}
	}
	return b, nil
}

// replaceFile puts b at name in dir. After a crash the old file or the new one is there; after
// the return the new one is there for good. Callers exclude each other, so the temporary has one
// fixed name, and a leftover of a crash is removed here. The umask has no effect on mode.
func replaceFile(dir int, name string, b []byte, mode uint32) error {
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
