package mounts

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// placed is a mount, by id, and its file system.
type placed struct {
	id     int
	device uint64
}

const (
	// lookTime is how long the kernel may take to say what a link in /proc leads to. Of a vmcryptfs it
	// knows at once; of NFS and 9P it asks the server.
	lookTime = time.Second
	// mostLooks bounds how many threads may hang at a server.
	mostLooks = 4
)

// looks is of the process, as are its threads: who hangs in one survey hangs on in the next.
var looks = make(chan struct{}, mostLooks)

var errLook = errors.New("a server does not answer")

// lookAt tells what a link in /proc leads to. Once a server does not answer the survey asks no more.
func (s *survey) lookAt(link string) (placed, error) {
	if s.hung {
		return placed{}, errLook
	}
	type answer struct {
		placed
		err error
	}
	late := time.NewTimer(lookTime)
	defer late.Stop()
	select {
	case looks <- struct{}{}:
	case <-late.C:
		s.hung = true
		return placed{}, errLook
	}
	answers := make(chan answer, 1)
	go func() { // ends with the system calls
		at, err := lookAt(link)
		answers <- answer{at, err}
		<-looks
	}()
	select {
	case a := <-answers:
		return a.placed, a.err
	case <-late.C:
		s.hung = true
		return placed{}, errLook
	}
}

// lookAt opens what a link in /proc leads to as O_PATH, a descriptor of our own: whatever
// the other process puts there meanwhile, no file system is asked, and closing flushes nothing.
func lookAt(link string) (placed, error) {
	fd, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return placed{}, err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
		return placed{}, err
	}
	id, err := IDOf(fd)
	return placed{id, unix.Mkdev(st.Dev_major, st.Dev_minor)}, err
}
