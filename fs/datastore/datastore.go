// Package datastore is a BACKING directory at rest: the settings file, the lock, and this host's
// memory of the directory. No mount is needed.
//
// Anybody able to write BACKING can write the settings, so no setting is believed before a proof.
// The seal proves the settings against a KEK. The memory of this host (design §5) proves that
// KEK, datastore and serial are the expected ones. A file or directory of the program below
// BACKING is opened only as the expected type (package byname), and read up to a bound. Only the
// lock file is written in place, and only where nobody else can have made the file.
package datastore

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

const (
	Dir          = layout.ReservedPrefix // BACKING/.vmcryptfs
	SettingsName = "datastore.toml"
)

// Why a datastore does not open; ask with errors.Is.
var (
	ErrNone      = errors.New("not a vmcryptfs datastore")
	ErrExists    = errors.New("already a vmcryptfs datastore")
	ErrUntrusted = errors.New("not the datastore this host knows") // another id, KEK or an older serial
	ErrBusy      = errors.New("in use by another vmcryptfs")
	ErrChanged   = errors.New("settings were changed by another program meanwhile")
)

// Store is an open BACKING. At most one process at a time holds a Store opened with the lock.
// Safe for concurrent use until Close.
type Store struct {
	host     *Host
	path     string
	fd       int      // BACKING; -1 after Close
	dir      int      // BACKING/.vmcryptfs; -1 after Close
	location location // key of the host's memory

	changes sync.Mutex // one Change, or end of a Verify, at a time; held over I/O; taken before mu
	lockFd  int        // flocked, or -1; like locked set by Open, else guarded by changes
	locked  bool

	exclusive bool // the lock is held from Open to Close; immutable

	mu       sync.Mutex // guards the rest; not held over I/O
	text     []byte     // the settings file as read
	sealed   *layout.Sealed
	trust    *trust // nil before Trust
	verified bool
}

// Open opens the datastore at backing on this host and reads the settings, proving nothing yet.
// exclusive takes the lock of a mount (ErrBusy); commands that only read do without the lock.
// ErrNone: there is no datastore. A settings file that does not parse, is too long or is no
// regular file gives a *layout.SettingsError.
func Open(backing string, exclusive bool) (*Store, error) {
	h, err := LocalHost()
	if err != nil {
		return nil, err
	}
	return h.Open(backing, exclusive)
}

// Open is the function Open, with the memory of h.
func (h *Host) Open(backing string, exclusive bool) (*Store, error) {
	s, err := h.openBacking(backing)
	if err != nil {
		return nil, err
	}
	if err := s.open(exclusive); err != nil {
		s.Close()
		return nil, fmt.Errorf("datastore %s: %w", s.path, err)
	}
	return s, nil
}

// openBacking opens the directory alone.
func (h *Host) openBacking(backing string) (*Store, error) {
	path, err := filepath.Abs(backing)
	if err != nil {
		return nil, fmt.Errorf("datastore %s: %w", backing, err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, fmt.Errorf("datastore: %w", err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open datastore %s: %w", path, err)
	}
	s := &Store{host: h, path: path, fd: fd, dir: -1, lockFd: -1}
	if s.location, err = locationOf(path, fd); err != nil {
		s.Close()
		return nil, fmt.Errorf("datastore %s: %w", path, err)
	}
	return s, nil
}

func (s *Store) open(exclusive bool) error {
	var err error
	if s.dir, err = openDir(s.fd, Dir); err != nil {
		switch {
		case errors.Is(err, unix.ENOENT):
			return ErrNone
		case errors.Is(err, unix.ENOTDIR): // somebody leads the settings elsewhere
			return fmt.Errorf("%s: %w", Dir, &layout.SettingsError{Reason: "a symbolic link or a file, no directory"})
		}
		return err
	}
	// The lock comes first: another program may be about to change the settings.
	if exclusive {
		if err := s.lock(); err != nil {
			return err
		}
		s.exclusive = s.lockFd >= 0
	}
	s.text, s.sealed, err = readSettings(s.dir)
	if errors.Is(err, unix.ENOENT) {
		return ErrNone
	}
	return err
}

// readSettings reads and parses the settings file in dir. Whatever is wrong with the
// file itself is a *layout.SettingsError.
func readSettings(dir int) ([]byte, *layout.Sealed, error) {
	text, err := readFile(dir, SettingsName, layout.MaxSettings)
	if unfit, ok := errors.AsType[*byname.UnfitError](err); ok {
		err = &layout.SettingsError{Reason: unfit.Why}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s/%s: %w", Dir, SettingsName, err)
	}
	sealed, err := layout.ParseSettings(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s/%s: %w", Dir, SettingsName, err)
	}
	return text, sealed, nil
}

// Path is BACKING's absolute path, symbolic links resolved.
func (s *Store) Path() string { return s.path }

// Fd is a descriptor of the directory BACKING, owned by the Store.
func (s *Store) Fd() int { return s.fd }

// Settings returns the settings as last read or changed; the caller must not modify them. Before
// Verify only ID, Provider and KEK count: anybody with access to BACKING may have written the
// rest.
func (s *Store) Settings() *layout.Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &s.sealed.Settings
}

// Verified reports whether Verify succeeded.
func (s *Store) Verified() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verified
}

// Close releases the lock; idempotent.
func (s *Store) Close() error {
	s.unlock()
	var errs []error
	for _, fd := range []*int{&s.dir, &s.fd} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

// kekRef names the current KEK of settings.
func kekRef(s *layout.Settings) keys.Ref { return keys.Ref{Provider: s.Provider, ID: s.KEK} }
