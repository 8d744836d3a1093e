package rekey

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

var (
	// ErrRequest is a wire.ErrRequest: the request makes no sense, and nothing was done.
	ErrRequest = fmt.Errorf("rekey: %w", wire.ErrRequest)
	// ErrLastLocker: without the dropped provider nothing would open the file.
	ErrLastLocker = errors.New("it would lose the last locker that opens it")
	// ErrLockersFull: every locker of the header is in use.
	ErrLockersFull = fmt.Errorf("all %d lockers are in use: drop a provider first", layout.MaxLockers)
)

// Request says which files get which lockers. The control socket takes a Request as JSON.
type Request struct {
	// Paths are files and directories below BACKING, without symbolic links; "." is
	// the whole datastore.
	Paths wire.Paths `json:"paths"`
	// To is an existing key of the target provider. New makes the provider create a key. For the
	// whole datastore the key becomes the current KEK; for the one path of a place with a key of
	// its own, that place's. Without To and New, at the settings' provider, each file gets the KEK
	// of its place. At another provider, the target is the newest key made there for this
	// datastore, or a new key.
	To  string `json:"to,omitempty"`
	New bool   `json:"new,omitempty"`
	// Add names the target provider; empty: the datastore's own.
	Add string `json:"add,omitempty"`
	// Drop names a provider whose lockers are removed. Without To, New and Add, nothing else
	// changes.
	Drop string `json:"drop,omitempty"`
}

// Config is the datastore and the keys for a Run. The caller still owns all of the fields.
type Config struct {
	Store *datastore.Store // locked
	Keys  *keys.Cache
	// Label is the name of the datastore's n-th KEK at a KMS.
	Label func(n uint64) string
	// PlaceKey gives a place with a key of its own another one: the key want, or one that its
	// provider makes where want is empty. The settings name the key when PlaceKey returns, and
	// changed reports that they did not before. nil: no place gets another key.
	PlaceKey func(ctx context.Context, place layout.Place, want string) (key wire.KeyName, created, changed bool, err error)
	// TakeUp waits until files that are being made under the old settings have their names. nil:
	// no other process or goroutine changes the datastore.
	TakeUp func()
}

// whole reports whether the request is for the whole datastore.
func (r *Request) whole() bool { return slices.Contains(r.Paths, ".") }

// onlyDrops reports whether no KEK is asked for.
func (r *Request) onlyDrops() bool { return r.Drop != "" && r.Add == "" && r.To == "" && !r.New }

// cleanPaths refuses paths that are not below BACKING, and cleans the others.
func (r *Request) cleanPaths() error {
	if len(r.Paths) == 0 {
		return fmt.Errorf("%w: no path", ErrRequest)
	}
	r.Paths = slices.Clone(r.Paths)
	for i, p := range r.Paths {
		if !filepath.IsLocal(p) {
			return fmt.Errorf("%w: path %q is not one below BACKING", ErrRequest, p)
		}
		r.Paths[i] = path.Clean(p)
		if reserved(r.Paths[i]) {
			return fmt.Errorf("%w: %s belongs to vmcryptfs", ErrRequest, p)
		}
	}
	if r.whole() {
		r.Paths = []string{"."}
	}
	return nil
}

// check refuses a request that makes no sense in a datastore with settings s, and completes r. The
// paths are clean.
func (r *Request) check(s *layout.Settings) error {
	if r.New && r.To != "" {
		return fmt.Errorf("%w: a new key and key %q exclude one another", ErrRequest, r.To)
	}
	if r.Drop == s.Provider && r.whole() && (r.Add == "" || r.Add == r.Drop) {
		return fmt.Errorf("%w: new files get their keys from provider %q: add the one that takes its place", ErrRequest, r.Drop)
	}
	if err := r.checkDrop(s); err != nil {
		return err
	}
	if r.Add == "" && !r.onlyDrops() {
		r.Add = s.Provider
	}
	if r.Drop != "" && r.Drop == r.Add {
		return fmt.Errorf("%w: provider %q cannot be both added and dropped", ErrRequest, r.Drop)
	}
	return nil
}

// checkDrop refuses to drop a provider whose keys a policy names: new files would have their only
// lockers there.
func (r *Request) checkDrop(s *layout.Settings) error {
	if r.Drop == "" {
		return nil
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		if p.KEK == "" || p.KEK == layout.KEKOfDatastore || cmp.Or(p.Provider, s.Provider) != r.Drop {
			continue
		}
		return fmt.Errorf("%w: the keys of policy %q are at provider %q; give the policy another provider by vmcryptfs policy define, or remove it, and rekey its places first", ErrRequest, p.Name, r.Drop)
	}
	return nil
}

// reserved reports whether an element of a path belongs to the program.
func reserved(rel string) bool {
	for element := range strings.SplitSeq(rel, "/") {
		if layout.Reserved(element) {
			return true
		}
	}
	return false
}
