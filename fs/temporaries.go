package fs

import (
	"strings"

	"vmcryptfs/byname"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/layout"
)

// temporaries names the files in which another form of a file is written:
// .vmcryptfs-HOST-MOUNT-NUMBER, each 16 hexadecimal digits. A temporary is never the only copy of
// anything: until the rename that ends the temporary, the name for the temporary leads to the old
// form; and a new file has no content before its name.
type temporaries struct {
	host  string // ".vmcryptfs-<host>-"
	mount string // host and a random part: those of this mount
}

func newTemporaries() (temporaries, error) {
	id, err := datastore.HostID()
	if err != nil {
		return temporaries{}, err
	}
	host := layout.TemporaryPrefix(id)
	return temporaries{host: host, mount: host + byname.Fresh() + "-"}, nil
}

// name is a new name for a temporary.
func (t temporaries) name() string { return t.mount + byname.Fresh() }

// owner says who may have a reserved name of BACKING in use.
type owner uint8

const (
	unknown   owner = iota // no temporary: a move's file, or one of another version
	thisMount              // in use, or about to be
	thisHost               // of an earlier mount of this host: out of use, for one mount serves BACKING
	otherHost              // of a host that may be alive
	nobodys                // of another host, which serves BACKING no more
)

// ownerOf is the owner of a reserved name. Code that removes a file of the program's asks first:
// only files of thisHost and nobodys may go, and a name unknown to ownerOf stays.
func (f *FS) ownerOf(name string) owner {
	switch {
	case !isTemporary(name):
		return unknown
	case strings.HasPrefix(name, f.temps.mount):
		return thisMount
	case strings.HasPrefix(name, f.temps.host):
		return thisHost
	case !f.store.Exclusive():
		return otherHost
	default: // BACKING's lock is this mount's alone, so no other host serves BACKING
		return nobodys
	}
}

// isLeftover reports whether name is that of a temporary out of use.
func (f *FS) isLeftover(name string) bool {
	whose := f.ownerOf(name)
	return whose == thisHost || whose == nobodys
}

// isForeign reports whether name is that of a temporary out of use, made by another host. The
// leftovers of this host go by themselves (sweep).
func (f *FS) isForeign(name string) bool { return f.ownerOf(name) == nobodys }

// isTemporary reports whether name has the form of a temporary's.
func isTemporary(name string) bool {
	_, ok := layout.ParseTemporary(name)
	return ok
}
