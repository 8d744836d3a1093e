package mounts

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// placed is a mount's id and the device number of its file system.
type placed struct {
	id     int
	device uint64
}

const (
	// lookTime is how long the kernel may take to follow a link in /proc. The kernel answers at
	// once for a vmcryptfs, and asks the server for NFS and 9P.
	lookTime = time.Second
	// mostLooks bounds how many threads may hang at a server.
	mostLooks = 4
)

// looks bounds the threads of the whole process: a thread that hangs in one survey still hangs in
// the next.
var looks = make(chan struct{}, mostLooks)

var errLook = errors.New("a server does not answer")

// lookAt gives the target of a link in /proc. After one server without an answer, the survey looks
// at no other link.
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

// lookAt opens the target of a link in /proc as O_PATH, and closes the descriptor. Neither step
// asks the file system, whatever file another process puts there meanwhile.
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
