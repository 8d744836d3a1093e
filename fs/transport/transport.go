// Package transport carries FUSE requests and answers: by an event loop of its own, which decodes
// READ and WRITE itself and leaves everything else to go-fuse's ProtocolServer, or by stock
// go-fuse, tuned (design §8).
//
// A Server ends when its mount is gone, by Unmount or by another program's umount(8), or when its
// connection is aborted (umount -f, fusectl), which leaves a dead mount. Then Wait returns, no
// request is under way, and no goroutine or descriptor is left.
package transport

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"

	"vmcryptfs/fs/mounts"
)

// The transports.
const (
	Loop   = "loop"    // our own event loop
	GoFuse = "go-fuse" // go-fuse's server
)

// Names are the transports. To be read only.
var Names = []string{Loop, GoFuse}

// Options of one mount; the zero value is the default.
type Options struct {
	FsName     string // source shown in /proc/self/mounts: BACKING
	AllowOther bool   // any user; default_permissions is always on
	ReadOnly   bool
	Extra      []string // further options for the kernel: "suid", "dev", "noexec", …
	Log        *slog.Logger

	// Transport is one of Names; empty: Loop for root, GoFuse else, since the loop
	// mounts by itself, and so needs CAP_SYS_ADMIN.
	Transport string
	// OnInit, if set, receives the way back to the kernel before the first request.
	OnInit func(Notifier)
}

// Notifier informs the kernel of changes made without a request of the kernel. Safe for
// concurrent use, but not under a lock that a request may wait for.
type Notifier interface {
	// InodeNotify drops cached attributes, and pages from off on, of a node; length 0 is
	// all. ENOENT if the kernel has none.
	InodeNotify(node uint64, off, length int64) fuse.Status
}

// Server is a mount being served. Safe for concurrent use, but for Attach.
type Server interface {
	// Attach puts a mount made by Prepare at its place; only Wait and Unmount may be called
	// before Attach. dead is the uppermost mount at MOUNTPOINT, whose daemon is gone, or nil
	// where there is none. The new mount takes the place of dead, and the directory below is out
	// of reach all the while. On a kernel before Linux 6.5, or with a source of over 255 bytes,
	// the dead mount stays below. After an error MOUNTPOINT is unchanged and Wait returns soon,
	// with the exception of ErrCovered. mounts.ErrNotMounted: somebody unmounted the dead mount.
	Attach(dead *mounts.Mount) error
	// Wait returns when the mount is gone and the last request is answered.
	Wait()
	// Unmount asks the kernel to unmount: EBUSY while files are open. lazy detaches the mount at
	// once; the mount is served until the last file is closed. After an unmount that was not
	// lazy, Wait returns soon; Unmount itself does not wait. Another mount in the place of this
	// one stays: mounts.ErrNotMounted.
	Unmount(lazy bool) error
	// Find returns this mount in the kernel's list: mounts.ErrNotMounted if the mount has left
	// its place. A mount found after Wait is a dead mount with an aborted connection, or a new
	// mount with the same device number.
	Find() (mounts.Mount, error)
	// Name is the transport's name for status, one of Names.
	Name() string
}

// Serve mounts raw at mountpoint, where no vmcryptfs is, and serves the mount. Serve returns when
// the kernel has answered INIT and the mount answers.
func Serve(mountpoint string, raw fuse.RawFileSystem, o Options) (Server, error) {
	s, err := Prepare(mountpoint, raw, o)
	if err != nil {
		return nil, err
	}
	if err := s.Attach(nil); err != nil {
		s.Wait()
		return nil, err
	}
	return s, nil
}

// Prepare is Serve for a mount that is not at mountpoint before Attach: the mount is served, and
// no path leads there. Unmount ends a mount never attached. Where fusermount3 mounts, and with a
// source of over 255 bytes, the mount is at mountpoint already when Prepare returns.
func Prepare(mountpoint string, raw fuse.RawFileSystem, o Options) (Server, error) {
	mountpoint, err := filepath.Abs(mountpoint)
	if err != nil {
		return nil, fmt.Errorf("mountpoint: %w", err)
	}
	if o.Transport == "" {
		o.Transport = GoFuse
		if os.Geteuid() == 0 {
			o.Transport = Loop
		}
	}
	switch o.Transport {
	case Loop:
		return serveLoop(mountpoint, raw, o)
	case GoFuse:
		return serveGoFuse(mountpoint, raw, o)
	default:
		return nil, fmt.Errorf("mount %s: transport %q is not known: %s is expected", mountpoint, o.Transport, strings.Join(Names, " or "))
	}
}
