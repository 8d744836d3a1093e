package fs

import (
	"errors"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/inode"
	"vmcryptfs/layout"
)

// creation describes a new file.
type creation struct {
	dir   *node
	name  string
	mode  uint32 // type and permissions as the caller gave them
	umask uint32 // of the caller; a default ACL of dir replaces the umask
	owner fuse.Owner
}

// place is the place of the new file.
func (c creation) place() inode.Place { return c.dir.In(c.name) }

// asked is the request as the log names it.
func (c creation) asked(op string) request { return ofName(op, c.dir, c.name) }

// Create makes a regular file and opens it.
func (r raw) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	dir, err := r.directory(in.NodeId)
	if err != nil {
		return r.status(ofName("create", dir, name), err)
	}
	defer dir.Unpin()
	c := creation{dir, name, in.Mode, in.Umask, in.Owner}
	n, err := r.create(cancel, c)
	if errors.Is(err, unix.EEXIST) && in.Flags&unix.O_EXCL == 0 {
		return r.status(c.asked("create"), r.openExisting(cancel, c, in, out))
	}
	if err != nil {
		return r.status(c.asked("create"), err)
	}
	r.handOut(n, in.Flags, true, &out.OpenOut)
	return r.status(c.asked("create"), r.created(n, out))
}

// created fills in the entry for a node with a handle. An error takes back the lookup and the
// handle.
func (f *FS) created(n *node, out *fuse.CreateOut) error {
	_, err := f.entry(n, &out.EntryOut)
	if err != nil {
		raw{f}.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
	}
	return err
}

// openExisting opens a file that another caller created meanwhile.
func (f *FS) openExisting(cancel <-chan struct{}, c creation, in *fuse.CreateIn, out *fuse.CreateOut) error {
	f.names.RLock()
	n, err := f.lookup(c.place())
	f.names.RUnlock()
	if err != nil {
		return err
	}
	err = f.open(cancel, n, in.Flags, &out.OpenOut)
	if err != nil {
		f.table.Forget(n.ID, 1)
		return err
	}
	if in.Flags&unix.O_TRUNC != 0 { // the kernel believes the file to be new
		if in.OpenFlags&fuse.OPEN_KILL_SUIDGID != 0 {
			err = f.killPrivileges(n, &in.InHeader)
		}
		if err == nil {
			err = f.truncate(cancel, n, 0, in.Caller)
		}
	}
	if err != nil {
		raw{f}.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
		f.table.Forget(n.ID, 1)
		return err
	}
	return f.created(n, out)
}

// create makes a regular file in the form of its class, counts a lookup and acquires the content.
// EEXIST leaves the existing file as it is.
func (f *FS) create(cancel <-chan struct{}, c creation) (*node, error) {
	if layout.Reserved(c.name) {
		return nil, unix.EPERM
	}
	c.mode = c.mode&^unix.S_IFMT | unix.S_IFREG // mknod(2) may leave the type out
	if err := f.mayCreate(cancel); err != nil {
		return nil, err
	}
	if f.verdict(c.place()).Class == layout.Clear {
		n, err := f.createClear(c)
		if !errors.Is(err, errNotClear) {
			return f.begun(cancel, n, err)
		}
	}
	n, err := f.createEncrypted(cancel, c)
	return f.begun(cancel, n, err)
}

// errNotClear: the rules were replaced since the name was judged to be clear.
var errNotClear = errors.New("the name is to be encrypted by now")

func (f *FS) createClear(c creation) (*node, error) {
	f.names.RLock()
	defer f.names.RUnlock()
	if f.verdict(c.place()).Class != layout.Clear {
		return nil, errNotClear
	}
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := f.openAs(c, c.name, flags)
	if err != nil {
		return nil, err
	}
	b := cryptfile.NewOSFile(fd)
	var st unix.Stat_t
	path := -1
	if err = unix.Fstat(fd, &st); err == nil {
		if err = f.daemon.give(c, fd); err == nil {
			path, err = f.pathOf(b)
		}
		if err != nil {
			err = errors.Join(err, removeIf(c.dir.FD(), c.name, backing.KeyOf(&st), 0))
		}
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return f.begin(content.OpenClear(b, backing.Clear, content.Intent{Read: true, Write: true}), path, c.place())
}

func (f *FS) createEncrypted(cancel <-chan struct{}, c creation) (*node, error) {
	var st unix.Stat_t
	if unix.Fstatat(c.dir.FD(), c.name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return nil, unix.EEXIST // no key is needed to say so
	}
	var n *node
	err := f.withKey(cancel, c.place(), func(k *fileKey) (err error) {
		n, err = f.createWith(c, k)
		return err
	})
	return n, err
}

func (f *FS) createWith(c creation, k *fileKey) (*node, error) {
	u, err := f.makeUnnamed(c, 0)
	if err != nil {
		return nil, err
	}
	file, err := f.format(c, u, k)
	if err != nil {
		return nil, errors.Join(err, u.abandon())
	}
	path, err := f.pathOf(u.file) // before the file gets its name: after a later failure the name would stay
	if err != nil {
		return nil, errors.Join(err, file.Close(), u.abandon())
	}
	f.names.RLock()
	defer f.names.RUnlock()
	err = f.checkKey(k)
	if err == nil {
		err = f.charge(&c.dir.Inode, c.dir.FD(), fuse.Caller{Owner: c.owner}, oneBlock, func() error {
			return publish(u.dir, u.file.Fd(), u.key, u.temp, c.name, f.namingIn(&c.dir.Inode))
		})
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(path), file.Close(), u.abandon())
	}
	return f.begin(file, path, c.place())
}

// pathOf is an O_PATH descriptor of an open file.
func (f *FS) pathOf(b *cryptfile.OSFile) (int, error) {
	return f.table.Sparing(func() (int, error) {
		return unix.Open(byname.ProcPath(b.Fd()), unix.O_PATH|unix.O_CLOEXEC, 0)
	})
}

// format makes an encrypted file of an empty one, and takes over u's file, also on error.
func (f *FS) format(c creation, u *unnamed, k *fileKey) (*content.File, error) {
	by := fuse.Caller{Owner: c.owner}
	err := f.charge(&c.dir.Inode, c.dir.FD(), by, 2*layout.SlotSize, func() error { return cryptfile.Format(u.file, k.header) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("new file: %w", err), u.file.Close())
	}
	file, _, err := content.OpenEncrypted(u.file, k.take(), content.Intent{Read: true, Write: true}, false)
	return file, err
}

// errKnown: the node of a new file was open before: another caller has found the file's name in
// BACKING.
var errKnown = errors.New("new file is known already")

// begin enters a new open file as a node with one lookup and one holder, which may write. errKnown
// leaves the open to begun. begin takes over path, the file's O_PATH descriptor. at is the file's
// place, or the zero Place for a file without a name.
func (f *FS) begin(file *content.File, path int, at inode.Place) (*node, error) {
	if at.Dir != nil {
		at.Dir.Renames.Add(1)
	}
	n, err := f.adoptNew(path, at)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if err := n.Pin(); err != nil {
		f.table.Forget(n.ID, 1)
		return nil, errors.Join(err, file.Close())
	}
	defer n.Unpin()
	installed, err := f.install(n, file, moment{rules: f.rules()}, true)
	if !installed && err == nil {
		return n, errKnown
	}
	if err != nil {
		f.table.Forget(n.ID, 1)
		return nil, err
	}
	return n, nil
}

// begun ends what begin began. No lock is held: the open may need a key, or a conversion.
func (f *FS) begun(cancel <-chan struct{}, n *node, err error) (*node, error) {
	if !errors.Is(err, errKnown) {
		return n, err
	}
	if err := f.acquire(cancel, n, content.Intent{Read: true, Write: true}); err != nil {
		f.table.Forget(n.ID, 1)
		return nil, err
	}
	return n, nil
}

// permissions are the mode of a new file: the umask applies where the directory has no default ACL.
// (The directory's owner, who may remove the ACL meanwhile, decides on the modes in the directory
// anyway.)
func (c creation) permissions() uint32 {
	mode := c.mode & 0o7777
	size, err := unix.Getxattr(byname.ProcPath(c.dir.FD()), aclDefault, nil)
	if err == nil && size > 0 {
		return mode
	}
	return mode &^ c.umask
}

// openAs opens a new file of BACKING, at name in the directory of c, as c's owner.
func (f *FS) openAs(c creation, name string, flags int) (fd int, err error) {
	mode := c.permissions()
	err = f.daemon.as(c.owner, func() (err error) {
		fd, err = unix.Openat(c.dir.FD(), name, flags, mode)
		return err
	})
	return fd, err
}
