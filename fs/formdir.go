package fs

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
)

// formDir is the directory in which one file changes its form: a cryptfile.Dir for one
// Conversion.
type formDir struct {
	parent   int         // descriptor of the directory; the caller's
	from     int         // O_PATH descriptor of the old form; the caller's
	key      backing.Key // identity of the old form
	nameless bool        // a removed file: the other form gets no name either
	link     bool        // a file without a name gets its first one
	others   []otherName // the file's names, but the one in parent
	how      naming      // of link

	// open makes the content of the new form, once the form is whole.
	open func() (*content.File, error)

	// The new form. These are the node's once the conversion has succeeded.
	file    *cryptfile.OSFile
	content *content.File // nil before prepare
	path    int           // O_PATH descriptor of file
	made    backing.Key
	mode    uint32
	dir     int // to sync parent by
	parted  []partedName
}

// CreateTemp makes the temporary, and gets everything needed to take the new form up.
func (d *formDir) CreateTemp(temp string) (cryptfile.Backing, error) {
	d.path, d.dir = -1, -1
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(d.parent, temp, flags, 0o600)
	if err != nil {
		return nil, err
	}
	d.file = cryptfile.NewOSFile(fd)
	if err := d.describe(fd); err != nil {
		return nil, errors.Join(err, d.file.Close(), d.Remove(temp))
	}
	if d.nameless {
		if err := removeIf(d.parent, temp, d.made, 0); err != nil {
			return nil, errors.Join(err, d.file.Close())
		}
	}
	return d.file, nil
}

func (d *formDir) describe(fd int) (err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	d.made = backing.KeyOf(&st)
	if d.path, err = unix.Open(byname.ProcPath(fd), unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	d.dir, err = unix.Openat(d.parent, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return err
}

// prepare is the Conversion's Prepare.
func (d *formDir) prepare(cryptfile.Backing) error {
	var err error
	if d.mode, err = copyAttributes(d.from, d.file.Fd()); err != nil {
		return err
	}
	content, err := d.open()
	d.content = content
	return err
}

// abandon gives up what a failed conversion has made.
func (d *formDir) abandon() error {
	var err error
	if d.content != nil {
		err = d.content.Close()
	}
	if d.file != nil && d.path >= 0 {
		unix.Close(d.path) // O_PATH: nothing can fail
	}
	return errors.Join(err, d.closeDir())
}

func (d *formDir) closeDir() error {
	d.closeOthers()
	if d.file == nil || d.dir < 0 {
		return nil
	}
	err := unix.Close(d.dir)
	d.dir = -1
	return err
}

// Publish gives the temporary the name, if the name still leads to the copied file.
func (d *formDir) Publish(temp, name string) error {
	if d.nameless {
		return nil
	}
	if d.link {
		return publish(d.parent, d.file.Fd(), d.made, temp, name, d.how)
	}
	if err := leadsTo(d.parent, name, d.key); err != nil {
		return err
	}
	if err := d.linkOthers(); err != nil {
		return errors.Join(err, d.unlinkOthers())
	}
	// Only a rename replaces. If other hands put another file under temp, the rename gives that
	// file the name, as the other hands could have done themselves: the node does not take the file
	// for its new form.
	if err := unix.Renameat(d.parent, temp, d.parent, name); err != nil {
		return errors.Join(err, d.unlinkOthers())
	}
	if err := leadsTo(d.parent, name, d.made); err != nil {
		return errors.Join(err, d.unlinkOthers())
	}
	d.renameOthers()
	_ = d.unlinkOthers() // of parted names: leftovers are hidden, and go at the next mount
	return nil
}

// Remove removes the temporary, if the name temp still leads to it.
func (d *formDir) Remove(temp string) error {
	err := removeIf(d.parent, temp, d.made, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// Sync is fsync of the directories.
func (d *formDir) Sync() error {
	if d.nameless {
		return nil
	}
	if err := unix.Fsync(d.dir); err != nil {
		return err
	}
	return d.syncOthers()
}

// copyAttributes gives the file to owner, extended attributes, mode and times of from, and returns
// from's mode. The mode comes after the owner, whose change clears suid, and after the ACL, with which the mode
// agrees then.
func copyAttributes(from, to int) (mode uint32, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return 0, err
	}
	var now unix.Stat_t
	if err := unix.Fstat(to, &now); err != nil {
		return 0, err
	}
	if now.Uid != st.Uid || now.Gid != st.Gid {
		if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
			return 0, err
		}
	}
	if err := copyXattrs(byname.ProcPath(from), to); err != nil {
		return 0, err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return 0, err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return st.Mode, unix.UtimesNanoAt(to, "", times, unix.AT_EMPTY_PATH)
}

// copyXattrs copies all extended attributes, and removes the ACL that the directory's default ACL
// gave the new file. Attributes of the security and trusted name spaces are left out where this
// process may not set them.
func copyXattrs(from string, to int) error {
	names, err := listXattrs(from)
	if err != nil {
		return err
	}
	if err := unix.Fremovexattr(to, aclAccess); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	for _, name := range names {
		value, err := readXattr(from, name)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return fmt.Errorf("attribute %q: %w", name, err)
		}
		err = unix.Fsetxattr(to, name, value, 0)
		privileged := strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "trusted.")
		if err != nil && !(privileged && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP))) {
			return fmt.Errorf("attribute %q: %w", name, err)
		}
	}
	return nil
}
