package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
)

// openLog makes the datastore's log file the standard error of this process, so that the Go
// runtime reports a crash there too.
func openLog(datastore string) (path string, err error) {
	f, err := openLogFile(datastore)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return f.Name(), unix.Dup3(int(f.Fd()), int(os.Stderr.Fd()), 0)
}

// CommandLog gives the log of a datastore, for a command that works without a daemon. Each line
// names the user and the process. Where the log cannot be opened, lines are dropped: the command
// prints the same facts. end closes the log.
func CommandLog(datastore string) (log *slog.Logger, end func()) {
	f, err := openLogFile(datastore)
	if err != nil {
		return slog.New(slog.DiscardHandler), func() {}
	}
	log, endLog := NewLog(f)
	return log.With("uid", os.Getuid(), "pid", os.Getpid()), func() {
		endLog()
		f.Close()
	}
}

// openLogFile opens the datastore's log for appending.
func openLogFile(datastore string) (*os.File, error) {
	in, err := LogDir()
	if err != nil {
		return nil, err
	}
	dir, err := byname.MakePrivateDir(in, 0o750)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	path := filepath.Join(in, datastore+".log")
	fd, st, err := byname.OpenOrMake(int(dir.Fd()), filepath.Base(path), unix.O_WRONLY|unix.O_APPEND, 0o640)
	if err == nil {
		if err = cmp.Or(byname.Single(&st), byname.Owned(&st)); err != nil {
			unix.Close(fd)
		}
	}
	if _, unfit := errors.AsType[*byname.UnfitError](err); unfit {
		return nil, fmt.Errorf("%s is %w: somebody put it in the log's place; remove it", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}
