package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/byname"
	"vmcryptfs/fs/mounts"
)

// outputName bounds, in bytes, how much of OUT's name the temporary contains: file systems allow
// 255 bytes for a whole name.
const outputName = 200

var (
	errOutExists error = advice.New(errors.New("it exists"), "choose another name, or --force overwrites it")
	errOutIsFile error = advice.New(errors.New("both are the same file"), "choose another name")
	errOutIsLink error = advice.New(errors.New("it is a symbolic link"), "name the file itself")
)

// openDevice opens out for writing if out is a device or a pipe, also through a link. The result
// is nil for a regular file and for a missing one. openDevice opens the very file of the check:
// between a look and a second open by name, another user could put a file in the place of out.
func openDevice(out string) (*os.File, error) {
	path, err := unix.Open(out, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: out, Err: err}
	}
	defer unix.Close(path)
	var st unix.Stat_t
	if err := unix.Fstat(path, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: out, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		return nil, nil
	}
	fd, err := byname.Reopen(path, unix.O_WRONLY)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: out, Err: err}
	}
	return os.NewFile(uintptr(fd), out), nil
}

// output is a file to become OUT once all data is written. Until keep, the file has a temporary
// name beside OUT and is accessible only to the owner, and an existing OUT stays. All steps happen
// in one open directory, even if the directory is renamed meanwhile.
type output struct {
	*os.File
	dir        *os.File
	temp, base string // names in dir
	kept       bool
}

// newOutput makes the temporary, unless checkOut refuses. The temporary's name has the ending of
// OUT: in a mounted datastore both are of one class.
func newOutput(from, out string, force bool) (*output, error) {
	out = filepath.Clean(out)
	dir, err := os.Open(filepath.Dir(out))
	if err != nil {
		return nil, err
	}
	o := &output{dir: dir, base: filepath.Base(out)}
	if err := o.make(from, out, force); err != nil {
		dir.Close()
		return nil, err
	}
	return o, nil
}

func (o *output) make(from, out string, force bool) error {
	if err := checkOut(int(o.dir.Fd()), from, out, force); err != nil {
		return err
	}
	o.temp = ".export-" + byname.Fresh() + "-" + o.base[max(0, len(o.base)-outputName):]
	path := filepath.Join(filepath.Dir(out), o.temp)
	fd, err := unix.Openat(int(o.dir.Fd()), o.temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	o.File = os.NewFile(uintptr(fd), path)
	return nil
}

// checkOut refuses an out, in the directory dir, that must not be written: the file to be read
// itself, also through a mount; a link; and, without force, every existing file. checkOut is only
// for mistakes of the user: keep itself overwrites no later file.
func checkOut(dir int, from, out string, force bool) error {
	source, err := os.Stat(from)
	if err != nil {
		return err
	}
	backing, _, err := mounts.Backing(out)
	if err != nil {
		return err
	}
	for _, path := range []string{out, backing} {
		if info, err := os.Stat(path); err == nil && os.SameFile(source, info) {
			return errOutIsFile
		}
	}
	var st unix.Stat_t
	err = unix.Fstatat(dir, filepath.Base(out), &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return &os.PathError{Op: "stat", Path: out, Err: err}
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return errOutIsLink
	case !force:
		return errOutExists
	}
	return nil
}

// keep gives a written file OUT's name, to stay through a crash.
func (o *output) keep(force bool) error {
	if err := errors.Join(o.Sync(), o.Close()); err != nil {
		return err
	}
	if err := o.rename(force); err != nil {
		return err
	}
	o.kept = true
	return o.dir.Sync()
}

// rename replaces an OUT only with force: one may have come meanwhile.
func (o *output) rename(force bool) error {
	dir := int(o.dir.Fd())
	if force {
		if err := unix.Renameat(dir, o.temp, dir, o.base); err != nil {
			return fmt.Errorf("rename %s: %w", o.Name(), err)
		}
		return nil
	}
	err := unix.Renameat2(dir, o.temp, dir, o.base, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // NFS has no such rename
		if err = unix.Linkat(dir, o.temp, dir, o.base, 0); err == nil {
			err = unix.Unlinkat(dir, o.temp, 0)
		}
	}
	if errors.Is(err, os.ErrExist) {
		return errOutExists
	}
	if err != nil {
		return fmt.Errorf("rename %s: %w", o.Name(), err)
	}
	return nil
}

// drop removes an output not kept, half a disk being worse than none, and closes the directory.
func (o *output) drop() {
	if !o.kept {
		o.Close() // again, perhaps
		unix.Unlinkat(int(o.dir.Fd()), o.temp, 0)
	}
	o.dir.Close()
}
