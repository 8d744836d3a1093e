package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// The handles of a file share one descriptor of BACKING, opened for their needs and no more: an
// open for writing copies a file up in overlayfs, is reported to watchers of BACKING at its end
// (IN_CLOSE_WRITE), and is refused for files that may only be read or appended to. When a first
// writer comes, or the last one goes, the descriptor is exchanged.

// openWanted opens the file of fd, an O_PATH descriptor, with a descriptor that covers i. A
// descriptor for writing reads too, as far as BACKING permits: units are written whole.
func (n *node) openWanted(i content.Intent, fd int) (file int, can content.Intent, err error) {
	if !i.Write {
		file, err = n.openBacking(fd, unix.O_RDONLY)
		return file, content.Intent{Read: true}, err
	}
	can = content.Intent{Read: true, Write: true}
	file, err = n.openBacking(fd, unix.O_RDWR)
	if errors.Is(err, unix.EPERM) && i.Append { // perhaps BACKING permits to append (chattr +a)
		can.Append = true
		file, err = n.openBacking(fd, unix.O_RDWR|unix.O_APPEND)
	}
	if errors.Is(err, unix.EACCES) && !i.Read { // a mount by the file's own user, with mode 0200
		can.Read = false
		flags := unix.O_WRONLY
		if can.Append {
			flags |= unix.O_APPEND
		}
		file, err = n.openBacking(fd, flags)
	}
	return file, can, err
}

// reopen opens the backing file of n for want.
func (n *node) reopen(want content.Intent) (b *cryptfile.OSFile, can content.Intent, err error) {
	err = n.At(func(int) (err error) {
		b, can, err = n.reopenHeld(want)
		return err
	})
	return b, can, err
}

// reopenHeld is reopen with n pinned, and n.Mu held.
func (n *node) reopenHeld(want content.Intent) (*cryptfile.OSFile, content.Intent, error) {
	file, can, err := n.openFor(want, n.FD())
	if err != nil {
		return nil, content.Intent{}, fmt.Errorf("open backing file: %w", err)
	}
	return cryptfile.NewOSFile(file), can, nil
}

// adapt exchanges the descriptor of n's open file for one that covers want and the needs of the
// holders. n.Mu is held exclusively.
func (f *FS) adapt(n *node, want content.Intent) error {
	o := n.file
	writers := o.HasWriters()
	all := content.Intent{
		Read:   want.Read || o.Can.Read,
		Write:  want.Write || writers,
		Append: want.Append || writers && o.Can.Append,
	}
	fd, can, err := n.openFor(all, n.FD())
	if err != nil {
		return fmt.Errorf("open backing file: %w", err)
	}
	if err = permits(can, o.Form); err == nil && !can.Covers(want) {
		err = fmt.Errorf("open for more than to append: %w", unix.EPERM)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	if o.Pair() != nil {
		return f.adaptPair(n, fd, can)
	}
	f.unheard(ofNode("write", n), o.Exchange(fd, can)) // each handle is told by its next sync
	return nil
}

// adaptPair exchanges both descriptors of n, which moves, and takes over fd, the carrier's. A pair
// that was opened by a read-only mount gets descriptors that write.
func (f *FS) adaptPair(n *node, fd int, can content.Intent) error {
	companion, err := n.openBacking(n.file.CompanionFd(), unix.O_RDWR)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("open the other half: %w", err)
	}
	f.unheard(ofNode("write", n), n.file.ExchangeMoving(fd, companion, can))
	return nil
}

// lessen exchanges the descriptor of n's open file for one that only reads, once no writer is left:
// then BACKING has the file open for writing no more. If the exchange fails, the descriptor stays.
// n.Mu is held exclusively.
func (f *FS) lessen(n *node) {
	if !n.file.Lessens() {
		return
	}
	_ = f.adapt(n, content.Intent{Read: true})
}

// Why the permissions of a file in BACKING keep the file from being written.
var (
	errAppendOnly = fmt.Errorf("append-only in BACKING, and only a file that is clear by its name can be appended to there, for any other is written in whole units: chattr -a: %w", unix.EPERM)
	errWriteOnly  = fmt.Errorf("its mode lets BACKING be written and not be read, so that it cannot be told if the file is encrypted: chmod u+r: %w", unix.EACCES)
)

// permits is nil if a descriptor that can do i serves content of this form.
func permits(i content.Intent, form backing.Form) error {
	if i.Append && form != backing.Clear && form != backing.Plain {
		return errAppendOnly
	}
	return nil
}

// judgeBy is backing.Judge by a descriptor that can do can.
func judgeBy(can content.Intent, b cryptfile.Backing, v layout.Verdict) (backing.Form, error) {
	if !can.Read {
		return judgeUnread(b, v)
	}
	return backing.Judge(b, v)
}

// judgeUnread is backing.Judge for a backing file that cannot be read. Under a name that is clear,
// a file shorter than a header is in clear.
func judgeUnread(b cryptfile.Backing, v layout.Verdict) (backing.Form, error) {
	size, err := b.Size()
	switch {
	case err != nil || size == 0:
		return backing.Empty, err
	case size < layout.DataOffset && v.Class == layout.Clear:
		return backing.Clear, nil
	default:
		return backing.Empty, errWriteOnly
	}
}
