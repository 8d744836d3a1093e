package fs

import (
	"encoding/binary"
	"hash/crc32"

	"golang.org/x/sys/unix"
)

// inodeKey is the identity of a backing inode among those that exist.
type inodeKey struct{ dev, ino uint64 }

func keyOf(st *unix.Stat_t) inodeKey { return inodeKey{st.Dev, st.Ino} }

// birth tells inodes apart that had one number after another. It is the same at every
// mount; 0: BACKING has nothing to tell them by. It is also the generation in FUSE's file
// handles, which has 32 bits.
type birth uint32

// birthOf is that of the inode that fd stands for: drawn from BACKING's own file
// handle, or where there is none from the birth time. handles: those of BACKING last.
// (Two handles that differ in 32 bits on end, as ext4's and XFS's of one number do, never
// have the same checksum.)
func birthOf(fd int, handles bool) birth {
	if handles {
		h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
		if err == nil {
			return birthFrom(h.Bytes())
		}
	}
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	var b [12]byte
	binary.LittleEndian.PutUint64(b[:], uint64(st.Btime.Sec))
	binary.LittleEndian.PutUint32(b[8:], st.Btime.Nsec)
	return birthFrom(b[:])
}

func birthFrom(b []byte) birth {
	return max(birth(crc32.ChecksumIEEE(b)), 1)
}

// lastingHandles tells if file handles of the file system at fd mean the same after a
// remount. Those of a FUSE file system are mostly numbers that its server counts.
func lastingHandles(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type != unix.FUSE_SUPER_MAGIC
}

// stamp tells two versions of a backing file apart.
type stamp struct {
	key          inodeKey
	size         int64
	mtime, ctime unix.Timespec
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{keyOf(st), st.Size, st.Mtim, st.Ctim}
}
