package backing

import (
	"hash/maphash"
	"slices"
	"time"

	"vmcryptfs/layout"
)

// seen is what a census sees under a name. It has seenBits bits.
type seen uint8

const (
	seenOther seen = iota
	seenDirectory
	seenEncrypted
	seenClear
	seenEmpty
	seenUnencrypted
	seenDamaged
	seenUnsynced
	seenBits = 3
)

// String is the form or what is wrong, in Census' words.
func (s seen) String() string {
	return [...]string{"other", "directory", "encrypted", "clear", "empty", "unencrypted", "damaged", "unsynced"}[s]
}

func (s seen) isFile() bool { return s > seenDirectory }

// remembered is what files were seen to be, 8 bytes for each: a hash of the version of the
// file and of its class, with what it is in the lowest seenBits bits. It is sorted, and
// immutable once a walk has ended. Who writes BACKING cannot make two versions have one
// hash: its seed is secret.
type remembered []uint64

const (
	// mostRemembered bounds it: 8 MiB, and as much again while a walk is under way. Files
	// beyond are looked into by each walk.
	mostRemembered = 1 << 20
	// youngest is the age from which a version is remembered. A younger one may be changed
	// again with no sign of it, within what BACKING's clock can tell apart.
	youngest = 2 * time.Second
	seenMask = 1<<seenBits - 1
)

// hashOf tells versions of files apart.
func hashOf(seed maphash.Seed, version Stamp, class layout.Class) uint64 {
	return maphash.Comparable(seed, struct {
		Stamp
		layout.Class
	}{version, class})
}

func (r remembered) find(hash uint64) (seen, bool) {
	hash &^= seenMask
	i, _ := slices.BinarySearch(r, hash)
	if i == len(r) || r[i]&^seenMask != hash {
		return 0, false
	}
	return seen(r[i] & seenMask), true
}

// add gives r, not sorted yet, with a file that was seen at now. What could not be read may
// be readable the next time.
func (r remembered) add(hash uint64, version *Stamp, s seen, now time.Time) remembered {
	young := now.Sub(time.Unix(version.ctime.Unix())) < youngest
	if young || !s.isFile() || len(r) >= mostRemembered {
		return r
	}
	return append(r, hash&^seenMask|uint64(s))
}

// sorted makes r ready for find.
func (r remembered) sorted() remembered {
	slices.Sort(r)
	return slices.Clip(slices.Compact(r))
}
