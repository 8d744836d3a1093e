package backing

import (
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// Form is what a regular file of BACKING is.
type Form uint8

const (
	Empty      Form = iota // nothing yet: it gets the form of its class when it is written
	Encrypted              // under whatever name
	Clear                  // cleartext under a name of class clear
	Descriptor             // cleartext under a name of class inspect: a VMDK descriptor
	Plain                  // cleartext where the class says encrypt
)

// String is the form in the words of info and of the census: a Descriptor is "clear", a Plain file
// "unencrypted".
func (f Form) String() string {
	switch f {
	case Empty:
		return "empty"
	case Encrypted:
		return "encrypted"
	case Clear, Descriptor:
		return "clear"
	default:
		return "unencrypted"
	}
}

// IsClear reports whether a file of this form is in clear by right.
func (f Form) IsClear() bool { return f == Clear || f == Descriptor }

// Class is the strictest one under which a file that is in clear by right may be had.
func (f Form) Class() layout.Class {
	if f == Descriptor {
		return layout.Inspect
	}
	return layout.Clear
}

// Judge gives the form of a regular file under a name of the verdict v, by the file's length and
// first bytes. layout.ErrDamaged if the file has no form: it begins as an encrypted file does, and
// ends inside the header. Other errors are the file's own.
func Judge(b cryptfile.Backing, v layout.Verdict) (Form, error) {
	size, err := b.Size()
	if err != nil || size == 0 {
		return Empty, err
	}
	encrypted, err := cryptfile.IsEncrypted(b)
	switch {
	case err != nil:
		return Empty, err
	case encrypted:
		return Encrypted, nil
	case v.Class == layout.Clear:
		return Clear, nil
	case v.Class == layout.Encrypt || size > layout.MaxDescriptor:
		return Plain, nil
	}
	text := make([]byte, size)
	n, err := cryptfile.PeekAt(b, text, 0)
	switch {
	case err != nil:
		return Empty, err
	case layout.IsDescriptor(text[:n]):
		return Descriptor, nil
	default:
		return Plain, nil
	}
}
