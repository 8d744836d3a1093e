package datastore

import (
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
