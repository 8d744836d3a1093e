package datastore

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
)

// Host is this machine's part in datastores: the memory of each, and the machine's id in the
// names of temporaries. Safe for concurrent use, by several processes too.
type Host struct {
	state     string // the state directory, made when first written
	machineID string // path of the machine id
}

// LocalHost is the Host with the state directory of StateDir.
func LocalHost() (*Host, error) {
	dir, err := StateDir()
	if err != nil {
		return nil, err
	}
	return NewHost(dir), nil
}

// NewHost returns a Host with its memory in the directory state.
func NewHost(state string) *Host {
	return &Host{state: state, machineID: "/etc/machine-id"}
}

// HostID is LocalHost's ID.
func HostID() (string, error) {
	h, err := LocalHost()
	if err != nil {
		return "", err
	}
	return h.ID()
}

// ID returns 16 hexadecimal digits identifying this host, for the names of temporaries on a
// BACKING shared by several hosts. machine-id(5) asks programs to keep the machine id secret, so
// ID is a keyed hash of the machine id. Without a machine id, ID is random and kept in the state
// directory.
func (h *Host) ID() (string, error) {
	b, err := os.ReadFile(h.machineID)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("host id: %w", err)
	}
	if id, err := hex.DecodeString(strings.TrimSpace(string(b))); err == nil && len(id) == 16 {
		mac := hmac.New(sha256.New, id)
		mac.Write([]byte("vmcryptfs host id v1"))
		return hex.EncodeToString(mac.Sum(nil)[:8]), nil
	}
	return h.randomID()
}

// randomID makes the kept id, once: the first of several processes wins.
func (h *Host) randomID() (string, error) {
	const name = "host-id"
	dir, unlock, err := h.lockState()
	if err != nil {
		return "", fmt.Errorf("host id: %w", err)
	}
	defer unlock()
	b, err := readOwn(dir, name, 64)
	if err == nil {
		id := strings.TrimSpace(string(b))
		if raw, err := hex.DecodeString(id); err != nil || len(raw) != 8 {
			return "", fmt.Errorf("host id: %s holds no 16 hexadecimal digits", filepath.Join(h.state, name))
		}
		return id, nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return "", fmt.Errorf("host id: %s: %w", filepath.Join(h.state, name), err)
	}
	var raw [8]byte
	rand.Read(raw[:])
	id := hex.EncodeToString(raw[:])
	if err := byname.Replace(dir, name, []byte(id+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("host id: %w", err)
	}
	return id, nil
}

// lockState opens the state directory, made if need be, and excludes other processes
// and goroutines until unlock.
func (h *Host) lockState() (dir int, unlock func(), err error) {
	state, err := byname.MakePrivateDir(h.state, 0o700)
	if err != nil {
		return -1, nil, fmt.Errorf("state of this host: %w", err)
	}
	dir = int(state.Fd())
	// The directory itself is the lock: local, and always there.
	for {
		err = unix.Flock(dir, unix.LOCK_EX)
		if err == nil {
			return dir, func() { state.Close() }, nil
		}
		if !errors.Is(err, unix.EINTR) {
			state.Close()
			return -1, nil, &os.PathError{Op: "lock", Path: h.state, Err: err}
		}
	}
}
