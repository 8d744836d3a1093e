package fs

import (
	"errors"

	"vmcryptfs/fs/content"
	"vmcryptfs/fs/inode"

	"golang.org/x/sys/unix"
)

// The needs of a conversion: supplied gets each without locks, and then try decides everything
// anew.
var (
	errNeedContent = errors.New("the file must be open to be converted")
	errNeedKey     = errors.New("a new key is needed to encrypt the file")
)

// supplied calls try, which gives n a name at a place, and supplies the need named by try's error:
// n's content, a new key for the place, or all names of n. EXDEV: n has names outside of BACKING;
// the caller can copy n.
func (f *FS) supplied(cancel <-chan struct{}, n *node, at inode.Place, try func(*fileKey) error) error {
	if err := n.Pin(); err != nil {
		return err
	}
	defer n.Unpin()
	var k *fileKey
	defer func() { k.wipe() }()
	open, looked := false, false
	for {
		err := try(k)
		switch {
		case errors.Is(err, errNeedContent):
			if err = f.acquire(cancel, n, content.Intent{Read: true}); err == nil {
				open = true
				continue
			}
		case errors.Is(err, errNeedKey), errors.Is(err, errOldKey):
			k.wipe()
			if k, err = f.newKey(cancel, at); err == nil {
				continue
			}
		case errors.Is(err, errLinks) && !looked:
			if err = f.lookForNames(cancel, n); err == nil {
				looked = true
				continue
			}
		case errors.Is(err, errLinks):
			err = unix.EXDEV
		}
		if open {
			err = firstError(err, f.release(n, false))
		}
		return err
	}
}

// encryptWith encrypts n for the sake of one of its names, or names the need as an error. FS.names
// and n.Mu are held exclusively.
func (f *FS) encryptWith(n *node, k *fileKey) error {
	switch {
	case n.file == nil:
		return errNeedContent
	case k.spent():
		return errNeedKey
	}
	return f.encrypt(n, k)
}

// withNames calls change, and after errLinks looks up all names of n and calls change once more.
func (f *FS) withNames(cancel <-chan struct{}, n *node, change func() error) error {
	err := change()
	if !errors.Is(err, errLinks) {
		return err
	}
	if err := f.lookForNames(cancel, n); err != nil {
		return err
	}
	return change()
}

// lookForNames looks up all names of n. No lock is held.
func (f *FS) lookForNames(cancel <-chan struct{}, n *node) error {
	var st unix.Stat_t
	if err := n.Stat(&st); err != nil {
		return err
	}
	return f.recallLinks(cancel, &st)
}
