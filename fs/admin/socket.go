package admin

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
)

// ErrInUse: a live mount answers on the datastore's socket.
var ErrInUse = errors.New("this datastore is mounted already")

// socketSuffix ends a socket's name, after the datastore's id.
const socketSuffix = ".sock"

// maxPath is the greatest length in bytes of a socket's path (unix(7), sun_path).
const maxPath = 107

// dialTimeout bounds a connection on this host. A daemon stopped by SIGSTOP still accepts
// connections, by the kernel's backlog.
const dialTimeout = 2 * time.Second

// socketPath is the socket of a datastore.
func socketPath(dir, datastore string) string {
	return filepath.Join(dir, datastore+socketSuffix)
}

// makeDir makes and opens dir, accessible only to its owner. A directory of another user, in a
// place where everybody may write, is refused.
func makeDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	// The socket is bound by its path, and a link in the path could change later.
	if info, err := os.Lstat(dir); err == nil && info.Mode()&os.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s is a symbolic link: make it a directory", dir)
	}
	return byname.MakePrivateDir(dir, 0o700)
}

// claim binds the datastore's socket: a stale one is replaced, a live one refused.
func claim(dir, datastore string) (*net.UnixListener, error) {
	if datastore == "" || strings.ContainsAny(datastore, "/\x00") {
		return nil, fmt.Errorf("control socket: bad datastore id %q", datastore)
	}
	if path := socketPath(dir, datastore); len(path) > maxPath {
		return nil, fmt.Errorf("control socket: %s is longer than %d bytes: choose a shorter $XDG_RUNTIME_DIR", path, maxPath)
	}
	made, err := makeDir(dir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	defer made.Close() // closing also releases the lock
	// Without the lock, a second daemon could remove the new socket of the first as stale.
	if err := lockDir(made); err != nil {
		return nil, fmt.Errorf("control socket: lock %s: %w", dir, err)
	}

	path := socketPath(dir, datastore)
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// The directory kept others out until now.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

// removeStale removes the socket of a daemon that has died.
func removeStale(path string) error {
	c, err := net.DialTimeout("unix", path, dialTimeout)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("control socket %s answers: %w", path, ErrInUse)
	case errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("control socket: remove stale: %w", err)
		}
		return nil
	}
	return fmt.Errorf("control socket: %w", err)
}

// lockDir excludes other processes from changing dir's sockets until dir is closed.
func lockDir(dir *os.File) error {
	for {
		if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// peerListener turns away peers other than the owner and root.
type peerListener struct{ *net.UnixListener }

// Accept gives the next connection from the owner or root, and closes all others.
func (l peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		peer, err := peerOf(c)
		if err == nil && peerAllowed(peer.UID, uint32(os.Geteuid())) {
			return &peerConn{c, peer}, nil
		}
		c.Close()
	}
}

// peerAllowed reports whether user uid may speak to a daemon of user owner.
func peerAllowed(uid, owner uint32) bool { return uid == 0 || uid == owner }
