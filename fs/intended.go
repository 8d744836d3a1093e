package fs

import (
	"golang.org/x/sys/unix"
)

// intent is what a file is opened for. Of a descriptor of BACKING it is what it can do.
type intent struct {
	read, write bool
	append      bool // written at its end alone (O_APPEND)
}

// intentOf is the intent of open(2)'s flags.
func intentOf(flags uint32) intent {
	access := flags & unix.O_ACCMODE
	return intent{
		read:   access != unix.O_WRONLY,
		write:  access != unix.O_RDONLY,
		append: flags&unix.O_APPEND != 0,
	}
}

// covers tells if a descriptor that can do i will do for want.
func (i intent) covers(want intent) bool {
	return (i.read || !want.read) && (i.write || !want.write) && !(i.append && want.write && !want.append)
}
