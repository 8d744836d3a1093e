package content

import (
	"golang.org/x/sys/unix"
)

// Intent is the purpose of an open. The Intent of a descriptor of BACKING is what the descriptor
// can do.
type Intent struct {
	Read, Write bool
	Append      bool // written at the end of the file alone (O_APPEND)
}

// IntentOf is the intent of open(2)'s flags.
func IntentOf(flags uint32) Intent {
	access := flags & unix.O_ACCMODE
	return Intent{
		Read:   access != unix.O_WRONLY,
		Write:  access != unix.O_RDONLY,
		Append: flags&unix.O_APPEND != 0,
	}
}

// Covers reports whether a descriptor that can do i will do for want.
func (i Intent) Covers(want Intent) bool {
	return (i.Read || !want.Read) && (i.Write || !want.Write) && !(i.Append && want.Write && !want.Append)
}
