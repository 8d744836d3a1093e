package fs

import (
	"cmp"
	"errors"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/inode"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// request is a caller's request as the log names it, made when the request has failed.
type request struct {
	op string
	at inode.Place // without a name: the inode itself
	to inode.Place // the second name of a request with two
}

// ofNode is a request for an inode.
func ofNode(op string, n *node) request { return ofName(op, n, "") }

// ofName is a request for a name.
func ofName(op string, dir *node, name string) request {
	if dir == nil {
		return request{op: op}
	}
	return request{op: op, at: dir.In(name)}
}

// ofBacking reports whether errno, as BACKING's answer to op, means trouble with BACKING: its
// device, its server, or its room. Answers for the sake of a caller are left out, and so is ESTALE,
// mostly a file removed by other hands.
func ofBacking(errno unix.Errno, op string) bool {
	switch errno {
	case unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS,
		unix.EUCLEAN, unix.EBADMSG, // BACKING's own structures are damaged (EFSCORRUPTED, EFSBADCRC)
		unix.ENODEV, unix.ENOMEDIUM, unix.EBADE, unix.ETIME, // a device
		unix.EREMOTEIO, unix.ENOLINK, unix.EPROTO, unix.ECOMM, unix.EPIPE, unix.ETIMEDOUT, // a server, and the way to it
		unix.ENOTCONN, unix.ESHUTDOWN, unix.ECONNABORTED, unix.ECONNRESET, unix.ECONNREFUSED,
		unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.ENETDOWN, unix.ENETUNREACH, unix.ENETRESET:
		return true
	case unix.ENODATA, unix.EILSEQ: // of sectors; for attributes and names these are the caller's affair
		return op == "read" || op == "write" || op == "fsync"
	default:
		return false
	}
}

// blame is the log's reason for a request that failed with err, made into errno. "": the failure is
// the caller's affair, or logged elsewhere.
func (f *FS) blame(op string, errno unix.Errno, err error) string {
	var cause unix.Errno
	switch {
	case !errors.As(err, &cause) || cause != errno,
		errors.Is(err, layout.ErrDamaged), errors.Is(err, keys.ErrTampered), errors.Is(err, keys.ErrMemory):
		return ""
	case errno == unix.EROFS && f.readOnly.Load(): // our own
		return ""
	case ofBacking(errno, op):
		return "error of BACKING"
	case errno == unix.EMFILE, errno == unix.ENFILE, errno == unix.ENOMEM:
		return "the system lacks descriptors or memory"
	default:
		return ""
	}
}

// tellFailed logs a request that failed by BACKING, once for a file and an errno.
func (f *FS) tellFailed(q request, errno unix.Errno, err error) {
	why := f.blame(q.op, errno, err)
	if why == "" {
		return
	}
	f.tellFailure(q, errno, why, err)
	if errno == unix.ENOSPC || errno == unix.EDQUOT {
		f.tellFull(q.at.Dir, errno)
	}
}

// unheard counts and logs an error for which no caller is waiting: of a close.
func (f *FS) unheard(q request, err error) {
	if err == nil {
		return
	}
	errno := f.errno(err)
	f.countFailed(q, errno)
	f.tellFailure(q, errno, "error of BACKING", err)
}

func (f *FS) countFailed(q request, errno unix.Errno) {
	if ofBacking(errno, q.op) {
		f.counts.backingErrors.Add(1)
	}
}

func (f *FS) tellFailure(q request, errno unix.Errno, why string, err error) {
	told := f.failures.first(failure{q.op, toldFileOf(q.at.Dir), q.at.Name, errno}, f.told.now())
	if told == 0 {
		return
	}
	args := []any{"file", cmp.Or(f.pathAt(q.at), "."), "errno", unix.ErrnoName(errno), "error", err}
	if q.to.Dir != nil {
		args = append(args, "to", cmp.Or(f.pathAt(q.to), "."))
	}
	if told == mostFailures {
		args = append(args, "more", "the next files with this error are only counted, in status")
	}
	f.log.Error(q.op+": "+why, args...)
}

// tellFull logs, once for the datastore, how much room there is on n's file system.
func (f *FS) tellFull(n *inode.Inode, errno unix.Errno) {
	why, message := backingFull, "BACKING is full"
	advice := "remove what is not needed, or enlarge the file system of BACKING; then go on with the guests that stand still"
	if errno == unix.EDQUOT {
		why, message = quotaUsed, "a quota of BACKING is used up"
		advice = "raise the quota of the files' owner or project in BACKING, or remove some of their files"
	}
	if !f.told.first(toldFile{}, why) {
		return
	}
	args := []any{"backing", f.store.Path(), "errno", unix.ErrnoName(errno)}
	var st unix.Statfs_t
	if n.At(func(fd int) error { return unix.Fstatfs(fd, &st) }) == nil {
		args = append(args, "free_bytes", st.Bavail*uint64(st.Frsize))
		if st.Files > 0 { // else the file system has no fixed number of inodes
			args = append(args, "free_inodes", st.Ffree)
		}
	}
	f.log.Error(message, append(args, "advice", advice)...)
}
