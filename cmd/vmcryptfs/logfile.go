package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
)

// openLog makes the datastore's log file the standard error of this process, so that a
// crash of the Go runtime is found there too.
func openLog(datastore string) (path string, err error) {
	in, err := logDir()
	if err != nil {
		return "", err
	}
	dir, err := byname.MakePrivateDir(in, 0o750)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	path = filepath.Join(in, datastore+".log")
	fd, st, err := byname.OpenOrMake(int(dir.Fd()), filepath.Base(path), unix.O_WRONLY|unix.O_APPEND, 0o640)
	if err == nil {
		defer unix.Close(fd)
		err = cmp.Or(byname.Single(&st), byname.Owned(&st))
	}
	if _, unfit := errors.AsType[*byname.UnfitError](err); unfit {
		return "", fmt.Errorf("%s is %w: somebody put it in the log's place; remove it", path, err)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return path, unix.Dup3(fd, int(os.Stderr.Fd()), 0)
}
