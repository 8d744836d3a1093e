// Package transport is how FUSE requests come and go. Today: stock go-fuse, tuned; the
// seam is Serve, so that an event loop of our own can take its place.
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
	Extra      []string // further options for the kernel: "nosuid", "dev", …
	Log        *slog.Logger
}

// Server is a mount being served.
type Server interface {
	// Wait returns when the mount is gone.
	Wait()
	// Unmount asks the kernel to unmount: EBUSY while files are open. lazy detaches.
	Unmount(lazy bool) error
	// Name is the transport's name for status: "go-fuse".
	Name() string
}

// Serve mounts raw at mountpoint and serves it; it returns when the kernel has answered
// INIT and the mount answers.
func Serve(mountpoint string, raw fuse.RawFileSystem, o Options) (Server, error) {
	panic("transport: not built yet")
}
