package backing

import (
	"encoding/binary"
	"hash/crc32"

	"golang.org/x/sys/unix"
)

// Key is the identity of a backing inode among those that exist.
type Key struct{ Dev, Ino uint64 }

// KeyOf is the Key of the inode that st is of.
func KeyOf(st *unix.Stat_t) Key { return Key{st.Dev, st.Ino} }

// Birth tells inodes apart that had one number after another. A Birth is the same at every
// mount; 0: the file system has nothing to tell its inodes apart by. A Birth is also the generation
// in FUSE's file handles, which has 32 bits.
type Birth uint32

// BirthOf is the Birth of the inode that fd stands for: drawn from the file system's own file
// handle, or from the birth time where there is no handle, or where handles is false: the file
// handles there do not last.
// (Two handles that differ in 32 bits on end, as ext4's and XFS's of one number do, never
// have the same checksum.)
func BirthOf(fd int, handles bool) Birth {
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

func birthFrom(b []byte) Birth {
	return max(Birth(crc32.ChecksumIEEE(b)), 1)
}

// LastingHandles reports whether file handles of the file system at fd mean the same after a
// remount. The handles of a FUSE file system are mostly numbers that its server counts.
func LastingHandles(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type != unix.FUSE_SUPER_MAGIC
}

// Stamp tells two versions of a backing file apart. Two Stamps are compared by ==.
type Stamp struct {
	key          Key
	size         int64
	mtime, ctime unix.Timespec
}

// StampOf is the Stamp of the file that st is of.
func StampOf(st *unix.Stat_t) Stamp {
	return Stamp{KeyOf(st), st.Size, st.Mtim, st.Ctim}
}
