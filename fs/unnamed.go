package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/ability"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/inode"
)

// unnamed is a new file before it gets its name. Where BACKING makes no file without a name, an
// unnamed has a hidden temporary name.
type unnamed struct {
	dir  int // descriptor of the directory; the creation's, not closed here
	file *cryptfile.OSFile
	temp string // empty: no name at all
	key  backing.Key
}

// makeUnnamed makes an empty file in the directory of c, with its final mode, ACL and owner. flags
// may be O_EXCL: the file will never get a name.
func (f *FS) makeUnnamed(c creation, flags int) (*unnamed, error) {
	u := &unnamed{dir: c.dir.FD()}
	fd, err := -1, error(unix.EOPNOTSUPP)
	if flags != 0 || !f.Abilities().Lacks(ability.Nameless) {
		fd, err = f.openAs(c, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|flags)
	}
	if noTmpfile(err) && flags == 0 {
		u.temp = f.temps.name()
		fd, err = f.openAs(c, u.temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	u.file = cryptfile.NewOSFile(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(err, u.file.Close()) // a temporary goes at the next mount
	}
	u.key = backing.KeyOf(&st)
	if err := f.daemon.give(c, fd); err != nil {
		return nil, errors.Join(err, u.file.Close(), u.abandon())
	}
	return u, nil
}

// noTmpfile reports whether err means that BACKING makes no file without a name.
func noTmpfile(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOENT)
}

// abandon removes the temporary name of a file that is to get no name.
func (u *unnamed) abandon() error {
	if u.temp == "" {
		return nil
	}
	return removeIf(u.dir, u.temp, u.key, 0)
}

// Tmpfile makes a file without a name (O_TMPFILE). The file is encrypted, so that any name will do.
func (r raw) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	dir, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(ofNode("tmpfile", dir), err)
	}
	defer dir.Unpin()
	c := creation{dir, "", in.Mode&^unix.S_IFMT | unix.S_IFREG, in.Umask, in.Owner}
	n, err := r.tmpfile(cancel, c, int(in.Flags)&unix.O_EXCL)
	if err != nil {
		return r.status(ofNode("tmpfile", dir), err)
	}
	r.handOut(n, in.Flags, true, &out.OpenOut)
	return r.status(ofNode("tmpfile", dir), r.created(n, out))
}

func (f *FS) tmpfile(cancel <-chan struct{}, c creation, flags int) (*node, error) {
	k, err := f.newKey(cancel, c.place())
	if err != nil {
		return nil, err
	}
	defer k.wipe()
	u, err := f.makeUnnamed(c, flags)
	if err != nil {
		return nil, err
	}
	if u.temp != "" && f.Abilities().Lacks(ability.Unlinked) {
		return nil, errors.Join(unix.EOPNOTSUPP, u.file.Close(), u.abandon())
	}
	// The temporary name is removed at once: the file lives on without a name.
	if err := u.abandon(); err != nil {
		return nil, errors.Join(err, u.file.Close())
	}
	file, err := f.format(c, u, k)
	if err != nil {
		return nil, err
	}
	path, err := f.pathOf(u.file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	n, err := f.begin(file, path, inode.Place{})
	return f.begun(cancel, n, err)
}
