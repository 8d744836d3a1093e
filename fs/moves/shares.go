package moves

import (
	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// zones is the extra space that a move takes at most, in bytes: two zones and a header.
const zones = 2*(64<<20) + layout.DataOffset

// Magic numbers of file systems whose files may share blocks (statfs(2)). What is cut off a file that
// shares is not freed.
const (
	btrfsMagic    = 0x9123683e
	xfsMagic      = 0x58465342
	bcachefsMagic = 0xca451a4e
	ocfs2Magic    = 0x7461636f
	zfsMagic      = 0x2fc12fc1
)

// sharesBlocks reports whether the file system of fd may share blocks between files, by reflinks or by
// its own snapshots. Snapshots below the file system, as of LVM, cannot be known.
func sharesBlocks(fd int) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false
	}
	switch uint32(st.Type) {
	case btrfsMagic, xfsMagic, bcachefsMagic, ocfs2Magic, zfsMagic:
		return true
	}
	return false
}

// extra is the space in bytes that it takes beside the file to move n bytes.
func extra(n int64, shares bool) int64 {
	if shares {
		return n + layout.DataOffset
	}
	return min(n+layout.DataOffset, zones)
}
