// Package transport is how FUSE requests come and go. Today: stock go-fuse, tuned; the
// seam is Serve, so that an event loop of our own can take its place.
//
// A Server ends when its mount is gone, by Unmount or by another program's umount(8):
// then Wait returns, no request is under way, and no goroutine or descriptor is left.
package transport

import (
	"log/slog"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Options of one mount; the zero value is the default.
type Options struct {
	FsName     string // source shown in /proc/self/mounts: BACKING
	AllowOther bool   // any user; default_permissions is always on
	ReadOnly   bool
	Extra      []string // further options for the kernel: "suid", "dev", "noexec", …
	Log        *slog.Logger
}

// Server is a mount being served. Safe for concurrent use.
type Server interface {
	// Wait returns when the mount is gone and the last request is answered.
	Wait()
	// Unmount asks the kernel to unmount: EBUSY while files are open. lazy detaches the
	// mount at once, and it is served until its last file is closed. After an unmount
	// that was not lazy, Wait returns soon; Unmount itself does not wait for that.
	Unmount(lazy bool) error
	// Name is the transport's name for status: "go-fuse".
	Name() string
}

// Serve mounts raw at mountpoint and serves it; it returns when the kernel has answered
// INIT and the mount answers.
func Serve(mountpoint string, raw fuse.RawFileSystem, o Options) (Server, error) {
	return serveGoFuse(mountpoint, raw, o)
}
