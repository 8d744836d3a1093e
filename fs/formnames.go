package fs

import (
	"errors"

	"vmcryptfs/byname"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/inode"

	"golang.org/x/sys/unix"
)

// A file with several names changes its form at all of them. The new form gets a temporary name
// beside each name, and then the temporaries are renamed, one after the other. A crash between two
// renames leaves both forms, with the same content, at some of the names each: the names are no
// longer links of one file, and nothing is lost.

// mostFormNames bounds the names of a file under conversion: other requests wait meanwhile.
const mostFormNames = 64

// otherName is a name, but the first, of a file under conversion.
type otherName struct {
	at   inode.Place // the directory is pinned
	temp string      // beside the name, for the new form
	dir  int         // to sync the directory by, or -1
}

// partedName is a name that still leads to the old form after the change, and the reason.
type partedName struct {
	at  inode.Place
	err error
}

// pinnedNames are all known names of n that still lead to the inode key; their directories are pinned.
func (f *FS) pinnedNames(n *node, key backing.Key) (pinned []inode.Place) {
	names, _ := n.Names()
	for _, at := range names {
		if at.Dir.Pin() != nil {
			continue
		}
		if leadsTo(at.Dir.FD(), at.Name, key) != nil {
			at.Dir.Unpin()
			continue
		}
		pinned = append(pinned, at)
	}
	return pinned
}

// unpinAll unpins the directories of pinnedNames.
func unpinAll(names []inode.Place) {
	for _, at := range names {
		at.Dir.Unpin()
	}
}

// otherNames prepares the change of form at the names after the first.
func (f *FS) otherNames(names []inode.Place) []otherName {
	others := make([]otherName, 0, len(names))
	for _, at := range names {
		others = append(others, otherName{at, f.temps.name(), -1})
	}
	return others
}

// linkOthers gives the new form its temporary names, so that only renames are left.
func (d *formDir) linkOthers() (err error) {
	for i := range d.others {
		o := &d.others[i]
		o.dir, err = unix.Openat(o.at.Dir.FD(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.Linkat(unix.AT_FDCWD, byname.ProcPath(d.file.Fd()), o.dir, o.temp, unix.AT_SYMLINK_FOLLOW)
		if err != nil {
			return err
		}
	}
	return nil
}

// unlinkOthers removes the temporary names that are left.
func (d *formDir) unlinkOthers() error {
	var errs []error
	for _, o := range d.others {
		if o.dir < 0 {
			continue
		}
		if err := removeIf(o.dir, o.temp, d.made, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// renameOthers puts the new form under the other names, once the first name leads to the new form.
// From then on the file has the new form whatever happens: a name that cannot follow is parted.
func (d *formDir) renameOthers() {
	for _, o := range d.others {
		if err := d.renameOther(o); err != nil {
			d.parted = append(d.parted, partedName{o.at, err})
		}
	}
}

func (d *formDir) renameOther(o otherName) error {
	// BACKING may fold cases: under another spelling the name leads to the new form already.
	if leadsTo(o.dir, o.at.Name, d.made) == nil {
		return nil
	}
	if err := leadsTo(o.dir, o.at.Name, d.key); err != nil {
		return err
	}
	return unix.Renameat(o.dir, o.temp, o.dir, o.at.Name)
}

// syncOthers is fsync of the other names' directories.
func (d *formDir) syncOthers() error {
	for _, o := range d.others {
		if err := unix.Fsync(o.dir); err != nil {
			return err
		}
	}
	return nil
}

func (d *formDir) closeOthers() {
	for _, o := range d.others {
		if o.dir >= 0 {
			unix.Close(o.dir) // opened for reading: nothing can fail
		}
	}
	d.others = nil
}
