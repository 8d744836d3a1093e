package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/layout"
)

// openBacking opens a regular file of BACKING for reading.
func openBacking(path string) (*cryptfile.OSFile, *unix.Stat_t, error) {
	// Not blocking: a FIFO may have the name. Nor is a link followed out of BACKING.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	return cryptfile.NewOSFile(fd), &st, nil
}

// rulesOf gives the rules of the datastore that path lies in; the built-in ones where
// there is none.
func rulesOf(path string) (*layout.Rules, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	for dir := filepath.Dir(abs); ; dir = filepath.Dir(dir) {
		_, err := os.Lstat(filepath.Join(dir, datastore.Dir, datastore.SettingsName))
		if err == nil {
			return rulesIn(dir)
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return nil, err
		}
		if dir == "/" {
			return nil, nil
		}
	}
}

// rulesIn gives the rules of the datastore at backing. Without a key their seal is not
// checked.
func rulesIn(backing string) (*layout.Rules, error) {
	store, err := datastore.Open(backing, false)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return layout.NewRules(store.Settings().Encrypt, store.Settings().Clear)
}
