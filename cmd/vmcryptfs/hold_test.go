package main

import (
	"context"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"vmcryptfs/fs/cryptfile"

	"golang.org/x/sys/unix"
)

// cmdHold: hold FILE makes a rekey stop at a backing file until release. hold locks the header of
// the file, as another rekey would.
func cmdHold(ts *testscript.TestScript, neg bool, args []string) {
	fd, err := unix.Open(ts.MkAbs(args[0]), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		ts.Fatalf("hold: %v", &os.PathError{Op: "open", Path: args[0], Err: err})
	}
	file := cryptfile.NewOSFile(fd)
	unlock, err := file.LockHeader(context.Background())
	ts.Check(err)
	k := kmsOf(ts)
	k.release = func() {
		unlock()
		file.Close()
		k.release = func() {}
	}
	ts.Defer(func() { k.release() })
}
