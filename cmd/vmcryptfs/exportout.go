package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin/mounts"
)

// outputName bounds how much of OUT's name its temporary bears, in bytes: file systems
// allow 255 in all.
const outputName = 200

var (
	errOutExists = errors.New("it exists: choose another name, or --force overwrites it")
	errOutIsFile = errors.New("both are the same file: choose another name")
	errOutIsLink = errors.New("it is a symbolic link: name the file itself")
)

// checkOut refuses an out that must not be written: the file to be read itself, also by
// its path through a mount; a link; without force, anything that is there.
func checkOut(from, out string, force bool) error {
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
	info, err := os.Lstat(out)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&os.ModeSymlink != 0:
		return errOutIsLink
	case !force:
		return errOutExists
	}
	return nil
}

// output is a file that is OUT only once it is whole: until keep it has a temporary
// name beside OUT, for its owner alone. An OUT that was there stays until then.
type output struct {
	*os.File
	out  string
	kept bool
}

// newOutput makes the temporary. Its name ends as OUT's does: in a mounted datastore
// the two are of one class.
func newOutput(out string) (*output, error) {
	dir, base := filepath.Split(filepath.Clean(out))
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, ".export-*-"+base[max(0, len(base)-outputName):])
	if err != nil {
		return nil, err
	}
	return &output{File: f, out: filepath.Join(dir, base)}, nil
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
	dir, err := os.Open(filepath.Dir(o.out))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// rename replaces an OUT only with force: one may have come meanwhile.
func (o *output) rename(force bool) error {
	if force {
		return os.Rename(o.Name(), o.out)
	}
	err := unix.Renameat2(unix.AT_FDCWD, o.Name(), unix.AT_FDCWD, o.out, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // NFS has no such rename
		if err = os.Link(o.Name(), o.out); err == nil {
			err = os.Remove(o.Name())
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

// drop takes away what was not kept: half a disk is worse than none.
func (o *output) drop() {
	if !o.kept {
		o.Close() // again, perhaps
		os.Remove(o.Name())
	}
}
