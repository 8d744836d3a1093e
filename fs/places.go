package fs

import (
	"cmp"
	"path"

	"vmcryptfs/fs/inode"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// A directory with a policy is a place (layout.Places). Which place a directory is follows from the
// path by which the table knows the directory. Where the path is not known, no place makes a name
// clear, and no KEK is taken for the right one. Nothing here is asked for a datastore without
// places.

// mostLevels bounds the depth of a directory: PATH_MAX of Linux holds no more names.
const mostLevels = 2048

// dirPath is the path of a directory below BACKING, "." for BACKING itself. known is false for a
// directory that other hands have moved, and that nobody has looked up since. No lock of the table is
// held.
func (f *FS) dirPath(dir *inode.Inode) (p string, known bool) {
	p = "."
	root := f.table.Root()
	for range mostLevels {
		if dir == root {
			return p, true
		}
		if dir == nil {
			return "", false
		}
		at, one := f.nameOf(dir)
		if !one {
			return "", false
		}
		p, dir = path.Join(at.Name, p), at.Dir
	}
	return "", false // a rename by other hands made a ring
}

// nameOf is the name of a directory. The table knows several after other hands moved the directory:
// then BACKING is asked. one is false where not exactly one name leads to the directory.
func (f *FS) nameOf(dir *inode.Inode) (at inode.Place, one bool) {
	names, _ := dir.Names()
	if len(names) == 1 {
		return names[0], true
	}
	leading := 0
	for _, name := range names {
		if name.Dir.Pin() != nil {
			continue
		}
		if leadsTo(name.Dir.FD(), name.Name, dir.Key()) == nil {
			at = name
			leading++
		}
		name.Dir.Unpin()
	}
	return at, leading == 1
}

// placePath is the path of a name below BACKING.
func (f *FS) placePath(at inode.Place) (p string, known bool) {
	dir, known := f.dirPath(at.Dir)
	return path.Join(dir, at.Name), known
}

// kekOf is the KEK of new files below the encrypting place a; nil: of the datastore. A KEK that the
// policy names is the only one that will do.
func (f *FS) kekOf(a *layout.Area) keys.Ref {
	ref := f.store.KEK()
	provider, id, own := a.OwnKEK()
	if !own {
		return ref
	}
	return keys.Ref{Provider: cmp.Or(provider, ref.Provider), ID: id}
}
