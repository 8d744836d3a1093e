package fs

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/inode"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// status turns an error into the kernel's errno; no other code does. asked is the failed request.
func (f *FS) status(asked request, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	errno := f.errno(err)
	if errors.Is(err, keys.ErrMemory) && f.told.first(toldFile{}, lockedMemory) {
		f.log.Error("encrypted files cannot be opened or made", "error", err)
	}
	f.countFailed(asked, errno)
	f.tellFailed(asked, errno, err)
	return fuse.Status(errno)
}

// mostErrno is above the kernel's greatest errno: the kernel would refuse an answer with such an
// errno, and the caller would wait for ever.
const mostErrno = 512

func (f *FS) errno(err error) unix.Errno {
	var errno unix.Errno
	switch {
	case errors.Is(err, keys.ErrNoKey), errors.Is(err, keys.ErrKeyLength):
		return unix.ENOKEY
	case errors.Is(err, keys.ErrSeal), errors.Is(err, datastore.ErrUntrusted):
		return unix.ENOKEY // nothing is created under unproven settings
	case errors.Is(err, context.Canceled):
		return unix.EINTR
	case errors.Is(err, layout.ErrUnsupported):
		return unix.EOPNOTSUPP
	case errors.Is(err, layout.ErrDamaged), errors.Is(err, keys.ErrTampered):
		return unix.EIO
	case errors.Is(err, os.ErrClosed):
		return unix.EBADF
	case !errors.As(err, &errno):
		return f.unexpected(err)
	case errno == unix.ENOSYS: // from one backing file; the kernel would take ENOSYS for all files
		return unix.EOPNOTSUPP
	case errno >= mostErrno:
		return f.unexpected(err)
	default:
		return errno
	}
}

// unexpected logs an error that has no errno for the caller: this program made none of the error,
// or BACKING gave a number outside of the errnos. Each one is logged: the next may be another, and
// no later success could end an entry in told.
func (f *FS) unexpected(err error) unix.Errno {
	f.log.Error("unexpected error", "error", err)
	return unix.EIO
}

// damaged passes err on. Damage, or a newer version, is counted, and logged with the file's name.
func (f *FS) damaged(n *node, err error) error {
	switch {
	case errors.Is(err, layout.ErrDamaged), errors.Is(err, keys.ErrTampered):
		f.counts.damaged.Add(1)
		f.tell(n, damagedHeader, slog.LevelError, "damaged file", "error", err)
	case errors.Is(err, layout.ErrUnsupported):
		f.counts.newerVersion.Add(1)
		f.tell(n, newerVersion, slog.LevelError, "file of a newer version", "error", err)
	}
	return err
}

// failed passes on an error of an open file's content. Damage is counted, and logged with the
// file's name.
func (f *FS) failed(n *node, err error) error {
	if err != nil && errors.Is(err, layout.ErrDamaged) {
		f.counts.damaged.Add(1)
		f.refuse(n, damagedData, "damaged file", "error", err)
	}
	return err
}

// lacksKey passes err on, and counts a lack of a key.
func (f *FS) lacksKey(err error) error {
	if err != nil && f.errno(err) == unix.ENOKEY {
		f.counts.noKey.Add(1)
		f.log.Debug("key not available", "error", err)
	}
	return err
}

// pathAt is the path of a name below BACKING, for the log.
func (f *FS) pathAt(at inode.Place) string { return path.Join(f.pathTo(at.Dir), at.Name) }

// path is one name of n below BACKING, for the log.
func (f *FS) path(n *node) string { return f.pathTo(&n.Inode) }

// pathTo is path for an inode.
func (f *FS) pathTo(n *inode.Inode) string {
	p := ""
	for range 256 { // a rename by other hands could have made a ring
		if n == f.table.Root() {
			return p
		}
		names, last := n.Names()
		if len(names) == 0 {
			return path.Join("(removed) "+last.Name, p)
		}
		p = path.Join(names[0].Name, p)
		n = names[0].Dir
	}
	return p
}
