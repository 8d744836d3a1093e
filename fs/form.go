package fs

import (
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// form is what a backing file is.
type form uint8

const (
	formEmpty      form = iota // nothing yet: it gets the form of its class when it is written
	formEncrypted              // under whatever name
	formClear                  // cleartext under a name of class clear
	formDescriptor             // cleartext under a name of class inspect: a VMDK descriptor
	formPlain                  // cleartext where the class says encrypt
)

func (f form) String() string {
	switch f {
	case formEmpty:
		return "empty"
	case formEncrypted:
		return "encrypted"
	case formClear, formDescriptor:
		return "clear"
	default:
		return "unencrypted"
	}
}

// isClear tells if a file of this form is in clear by right.
func (f form) isClear() bool { return f == formClear || f == formDescriptor }

// class is the strictest one under which a file that is in clear by right may be had.
func (f form) class() layout.Class {
	if f == formDescriptor {
		return layout.Inspect
	}
	return layout.Clear
}

// judge tells the form of a regular backing file under a name: layout.ErrDamaged if it
// is none, or the backing file's error.
func judge(b cryptfile.Backing, v layout.Verdict) (form, error) {
	size, err := b.Size()
	if err != nil || size == 0 {
		return formEmpty, err
	}
	encrypted, err := cryptfile.IsEncrypted(b)
	switch {
	case err != nil:
		return formEmpty, err
	case encrypted:
		return formEncrypted, nil
	case v.Class == layout.Clear:
		return formClear, nil
	case v.Class == layout.Encrypt || size > layout.MaxDescriptor:
		return formPlain, nil
	}
	text := make([]byte, size)
	n, err := cryptfile.PeekAt(b, text, 0)
	switch {
	case err != nil:
		return formEmpty, err
	case layout.IsDescriptor(text[:n]):
		return formDescriptor, nil
	default:
		return formPlain, nil
	}
}
