package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
)

// unnamed is a new file before it gets its name. Where BACKING cannot make a file without
// a name, it has a hidden temporary one.
type unnamed struct {
	dir  int // descriptor of the directory, not the unnamed's
	file *cryptfile.OSFile
	temp string // empty: no name at all
}

// makeUnnamed makes an empty file in the directory of c with mode, ACL and owner as they
// will be. flags may be O_EXCL: never to get a name.
func (f *FS) makeUnnamed(c creation, flags int) (*unnamed, error) {
	u := &unnamed{dir: c.dir.fd}
	mode := c.permissions()
	fd, err := unix.Openat(u.dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|flags, mode)
	if noTmpfile(err) && flags == 0 {
		u.temp = f.temps.name()
		fd, err = unix.Openat(u.dir, u.temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	}
	if err != nil {
		return nil, err
	}
	u.file = cryptfile.NewOSFile(fd)
	if err := c.own(fd); err != nil {
		return nil, errors.Join(err, u.file.Close(), u.abandon())
	}
	return u, nil
}

// noTmpfile tells if err says that there are no files without a name here.
func noTmpfile(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOENT)
}

// publish gives the file its name, or EEXIST.
func (u *unnamed) publish(name string) error {
	if u.temp == "" {
		return unix.Linkat(unix.AT_FDCWD, procPath(u.file.Fd()), u.dir, name, unix.AT_SYMLINK_FOLLOW)
	}
	err := unix.Linkat(u.dir, u.temp, u.dir, name, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) { // no hard links here
		return unix.Renameat2(u.dir, u.temp, u.dir, name, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return err
	}
	return unix.Unlinkat(u.dir, u.temp, 0)
}

// abandon takes away the temporary name of a file that gets none.
func (u *unnamed) abandon() error {
	if u.temp == "" {
		return nil
	}
	return unix.Unlinkat(u.dir, u.temp, 0)
}

// Tmpfile makes an encrypted file without a name (O_TMPFILE): it may get any name.
func (r raw) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	dir, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(err)
	}
	defer dir.letGo()
	n, err := r.tmpfile(cancel, creation{dir, "", in.Mode, in.Umask, in.Owner}, int(in.Flags)&unix.O_EXCL)
	if err != nil {
		return r.status(err)
	}
	r.handOut(n, in.Flags, &out.OpenOut)
	return r.status(r.created(n, out))
}

func (f *FS) tmpfile(cancel <-chan struct{}, c creation, flags int) (*node, error) {
	k, err := f.newKey(cancel)
	if err != nil {
		return nil, err
	}
	u, err := f.makeUnnamed(c, flags)
	if err != nil {
		k.dek.Wipe()
		return nil, err
	}
	// A temporary name is taken away at once: the file lives on without.
	if err := u.abandon(); err != nil {
		k.dek.Wipe()
		return nil, errors.Join(err, u.file.Close())
	}
	file, err := f.format(u, k)
	if err != nil {
		return nil, err
	}
	path, err := f.pathOf(u.file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	n, err := f.begin(file, path, nil, "")
	return f.begun(cancel, n, err)
}
