package fs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// GetAttr reads attributes; no key is needed.
func (r raw) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := r.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	valid, err := r.attr(n, &out.Attr)
	out.SetTimeout(valid)
	return r.status(ofNode("getattr", n), err)
}

// attr is readAttr with refresh. No lock is held.
func (f *FS) attr(n *node, out *fuse.Attr) (valid time.Duration, err error) {
	seen, err := f.readAttr(n, out)
	f.refresh(n, seen)
	return seen.valid, err
}

// Statx is GetAttr with the birth time of the backing file.
func (r raw) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n := r.node(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	var attr fuse.Attr
	valid, err := r.attr(n, &attr)
	if err != nil {
		return r.status(ofNode("getattr", n), err)
	}
	var st unix.Statx_t
	err = n.At(func(fd int) error {
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	})
	if err != nil {
		return r.status(ofNode("getattr", n), err)
	}
	out.FromStatx(&st)
	out.Ino = attr.Ino
	out.Size = attr.Size
	out.Blocks = attr.Blocks
	out.SetTimeout(valid)
	return fuse.OK
}

// look is the by-product of reading attributes.
type look struct {
	valid   time.Duration // how long the kernel may believe the attributes
	version backing.Stamp // of the backing file; zero of a file open as an encrypted one
	stale   bool          // the kernel's pages of the file are wrong by now
}

// readAttr fills in n's attributes: those of the backing inode, but for number and size.
func (f *FS) readAttr(n *node, out *fuse.Attr) (seen look, err error) {
	if err := n.Pin(); err != nil {
		return seen, err
	}
	defer n.Unpin()
	n.Mu.RLock()
	defer n.Mu.RUnlock()
	if n.file != nil {
		n.file.SettleTimes()
	}
	var st unix.Stat_t
	mode := n.mode.Load()
	if err := unix.Fstat(n.FD(), &st); err != nil {
		return seen, err
	}
	n.mode.CompareAndSwap(mode, st.Mode) // unless a chmod since is newer
	fill(out, &st)
	out.Ino = n.Ino
	seen.valid = inode.CacheTime
	if !n.IsRegular() {
		return seen, nil
	}
	if n.file != nil && n.file.Form == backing.Encrypted {
		return seen, n.openAttr(out)
	}
	if n.file == nil && !f.closedAttr(n, &st, out) { // with too great a size, the kernel would read zeros past the end
		seen.valid = 0
	}
	seen.version = backing.StampOf(&st)
	seen.stale = n.changedByOthers(seen.version)
	return seen, nil
}

// openAttr fills in the attributes of n, open as an encrypted file, that its descriptor does not have.
// n.Mu is held.
func (n *node) openAttr(out *fuse.Attr) error {
	size, err := n.file.Size()
	out.Size = uint64(size)
	if err != nil || n.file.Pair() == nil {
		return err
	}
	var other unix.Stat_t
	err = n.file.CompanionStat(&other)
	out.Blocks += uint64(other.Blocks)
	return err
}

// closedAttr fills in the attributes of n, not open, whose backing file has the status st. sure is
// false where the size may be another. n is pinned, and n.Mu.
func (f *FS) closedAttr(n *node, st *unix.Stat_t, out *fuse.Attr) (sure bool) {
	seen, sure := f.looksNow(n, st)
	if seen.encrypted {
		size, _ := layout.LogicalLen(st.Size - layout.DataOffset)
		out.Size = uint64(size)
	}
	if seen.move == (layout.FileID{}) {
		return sure
	}
	var other unix.Stat_t
	if f.statCompanion(n, seen.move, &other) != nil {
		return sure && !seen.endBeside
	}
	out.Blocks += uint64(other.Blocks)
	if seen.endBeside {
		out.Size = uint64(other.Size)
	}
	return sure
}

func fill(out *fuse.Attr, st *unix.Stat_t) {
	*out = fuse.Attr{
		Size:      uint64(st.Size),
		Blocks:    uint64(st.Blocks),
		Atime:     uint64(st.Atim.Sec),
		Mtime:     uint64(st.Mtim.Sec),
		Ctime:     uint64(st.Ctim.Sec),
		Atimensec: uint32(st.Atim.Nsec),
		Mtimensec: uint32(st.Mtim.Nsec),
		Ctimensec: uint32(st.Ctim.Nsec),
		Mode:      st.Mode,
		Nlink:     uint32(st.Nlink),
		Owner:     fuse.Owner{Uid: st.Uid, Gid: st.Gid},
		Rdev:      uint32(st.Rdev),
		Blksize:   uint32(st.Blksize),
	}
}
