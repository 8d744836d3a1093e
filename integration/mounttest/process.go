package mounttest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// AwaitExit waits until process pid has ended. (The parent, or process 1 of the namespace, reaps
// the process.)
func AwaitExit(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(Patience.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("wait for process %d: %w", pid, err)
		case n == 0:
			return fmt.Errorf("process %d still runs after %v", pid, Patience)
		default:
			return nil
		}
	}
}
