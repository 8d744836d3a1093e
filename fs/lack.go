package fs

import (
	"errors"

	"vmcryptfs/fs/content"
	"vmcryptfs/fs/inode"

	"golang.org/x/sys/unix"
)

// What a conversion cannot do without; it is got without locks, and all is decided again.
var (
	errNeedContent = errors.New("the file must be open to be converted")
	errNeedKey     = errors.New("a new key is needed to encrypt the file")
)

// supplied calls try, which gives n a name at a place, with what try says it lacks: n's content, a
// new key for the place, or all names of n. EXDEV if n has names that lead from outside of BACKING: then it can
// be copied.
func (f *FS) supplied(cancel <-chan struct{}, n *node, at inode.Place, try func(*fileKey) error) error {
	if err := n.Hold(); err != nil {
		return err
	}
	defer n.LetGo()
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

// encryptWith encrypts n, of which a name wants it, or says what is lacking for that. FS.names and
// n.mu are held exclusively.
func (f *FS) encryptWith(n *node, k *fileKey) error {
	switch {
	case n.file == nil:
		return errNeedContent
	case k.spent():
		return errNeedKey
	}
	return f.encrypt(n, k)
}

// withNames calls change, and once more with all names of n looked up if it lacks them.
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

// lookForNames looks all names of n up. No lock is held.
func (f *FS) lookForNames(cancel <-chan struct{}, n *node) error {
	var st unix.Stat_t
	if err := n.Stat(&st); err != nil {
		return err
	}
	return f.recallLinks(cancel, &st)
}
