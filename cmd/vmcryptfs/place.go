package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/mounts"
)

// behind gives the file or directory of BACKING meant by path. A path through a mount, or through
// a bind mount of a part, gives the path below BACKING; every other path stays the same.
func behind(path string) (at string, mounted bool, err error) {
	if at, mounted, err = mounts.Backing(path); err != nil || !mounted {
		return at, mounted, err
	}
	m, abs, err := mounts.Above(path)
	if err != nil {
		return "", false, err
	}
	// The mounting user also chooses the source in the kernel's list.
	if uid, ok := m.Owner(); !ok || uid != 0 && uid != os.Geteuid() {
		return "", false, advice.New(fmt.Errorf("%s lies in a mount of uid %d: %w", path, uid, unix.EPERM), "name the file in BACKING itself, or ask as that user")
	}
	return at, true, checkSame(path, at, within(m, abs))
}

// inodeBits are the bits common to the number of a backing inode and the number in a mount.
const inodeBits = 1<<56 - 1

// within is the directory of abs, without links. within is empty where the directory is not in m.
func within(m mounts.Mount, abs string) string {
	if abs == m.Mountpoint { // a bind mount of a file, say
		return ""
	}
	return filepath.Dir(abs)
}

// checkSame makes sure that path, through a mount, and at, in BACKING, are one file: another file
// system may be mounted over BACKING, or the mount may be of another namespace. checkSame compares
// dir, path's directory in the mount, since a file with a changed form keeps the number in the
// mount and has another in BACKING. checkSame does not wait for a dead or silent mount.
func checkSame(path, at, dir string) error {
	if _, err := statWithin(path, daemon.DeadTime); err != nil {
		return nil // a later access to BACKING shows the state of the file
	}
	var st unix.Stat_t
	err := unix.Stat(at, &st)
	switch {
	case isAny(err, unix.EACCES, unix.EPERM):
		return notReadable(path, at, err)
	case isAny(err, unix.ENOENT, unix.ENOTDIR):
		return advice.New(fmt.Errorf("%s lies in BACKING at %s, where nothing is: %w", path, at, err), "uncover BACKING if something is mounted over it, or ask in the mount namespace of the daemon")
	case err != nil:
		return fmt.Errorf("%s lies in BACKING: %w", path, &os.PathError{Op: "stat", Path: at, Err: err})
	case st.Mode&unix.S_IFMT == unix.S_IFREG && dir != "" && !showsDir(dir, filepath.Dir(at)):
		return advice.New(fmt.Errorf("%s lies in BACKING at %s, where another file is", path, at), "uncover BACKING if something is mounted over it, or ask in the mount namespace of the daemon")
	}
	return nil
}

// showsDir reports whether dir, through a mount, may be the directory at of BACKING.
func showsDir(dir, at string) bool {
	shown, err := statWithin(dir, daemon.DeadTime)
	if err != nil {
		return true // as in checkSame
	}
	var st unix.Stat_t
	return unix.Stat(at, &st) == nil && (st.Ino^shown.Ino)&inodeBits == 0
}

// notReadable gives the error for a file readable only through a mount.
func notReadable(path, at string, err error) error {
	return advice.New(fmt.Errorf("%s lies in BACKING at %s, which you may not look into: %w", path, at, err), "read it through the mount, or ask as the user who mounted it")
}

// statWithin is stat(2) with a limit of time, for a silent mount. Beyond the limit, the error is
// daemon.ErrSilent.
func statWithin(path string, limit time.Duration) (*unix.Stat_t, error) {
	type answer struct {
		st  unix.Stat_t
		err error
	}
	answers := make(chan answer, 1)
	go func() { // the goroutine ends with the system call, and the call at the latest when the daemon ends
		var a answer
		a.err = unix.Stat(path, &a.st)
		answers <- a
	}()
	select {
	case a := <-answers:
		return &a.st, a.err
	case <-time.After(limit):
		return nil, daemon.ErrSilent
	}
}

// datastoreAt gives the BACKING of the datastore meant by path; path may be a mount. For a
// directory inside a datastore, the error is datastore.ErrNone.
func datastoreAt(path string) (backing string, err error) {
	if backing, _, err = behind(path); err != nil {
		return "", err
	}
	root, err := datastoreAbove(backing)
	if err != nil || root == "" || isSame(root, backing) {
		return backing, err
	}
	return "", advice.New(fmt.Errorf("%s: %w, but lies in %s", path, datastore.ErrNone, root), "name "+root)
}

// isSame reports whether both paths lead to one file or directory.
func isSame(a, b string) bool {
	one, err := os.Stat(a)
	other, otherErr := os.Stat(b)
	return err == nil && otherErr == nil && os.SameFile(one, other)
}

// datastoreAbove gives the datastore at or above path, without links. root is empty where there is
// no datastore, and where path does not exist.
func datastoreAbove(path string) (root string, err error) {
	at, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if at, err = filepath.EvalSymlinks(at); err != nil {
		return "", nil // opening the path later gives the error
	}
	for root = at; ; root = filepath.Dir(root) {
		_, err := os.Lstat(filepath.Join(root, datastore.Dir, datastore.SettingsName))
		if err == nil {
			return root, nil
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return "", err
		}
		if root == "/" {
			return "", nil
		}
	}
}
