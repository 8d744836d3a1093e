package policy

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// ErrRequest is a wire.ErrRequest: the request makes no sense, and nothing was changed.
var ErrRequest = fmt.Errorf("policy: %w", wire.ErrRequest)

// What a Request does.
const (
	DoDefine = "define" // a policy, new or another than before
	DoRemove = "remove" // a policy that no place has
	DoSet    = "set"    // a directory's policy, or whether one disk is encrypted
	DoUnset  = "unset"  // a directory is no place any more
	DoRebind = "rebind" // a place gets the path that its directory has by now
)

// KeyNew asks for a new KEK of a place.
const KeyNew = "new"

// Request is one change. The control socket takes a Request as JSON.
type Request struct {
	Do string `json:"do"`
	// Name is the policy, but for DoUnset and DoRebind.
	Name string `json:"name,omitempty"`
	// Encrypt is the policy's, for DoDefine.
	Encrypt bool `json:"encrypt,omitempty"`
	// KEK is for DoDefine the policy's as in layout.Policy; for DoSet KeyNew, or an existing key
	// of the policy's provider, for a policy that gives each place its own.
	KEK string `json:"kek,omitempty"`
	// Provider is the policy's, for DoDefine. DoSet refuses another one than the policy's.
	Provider string `json:"provider,omitempty"`
	// Path is below BACKING: a directory, or for DoSet also a regular file.
	Path []byte `json:"path,omitempty"`
	// From is the path of the place, for DoRebind where several may be meant.
	From []byte `json:"from,omitempty"`
}

// Result is what a Request changed.
type Result struct {
	Serial  uint64 `json:"serial"`  // of the settings that hold the change
	Changed bool   `json:"changed"` // false: everything was so before
	// Places were made, changed or (Removed) removed by the request.
	Places []Changed `json:"places"`
}

// Changed is a place as it is after a Request.
type Changed struct {
	Path    string        `json:"path"`
	ID      string        `json:"id"`
	Policy  string        `json:"policy"`
	KEK     *wire.KeyName `json:"kek,omitempty"` // the place's own
	Created bool          `json:"created"`       // the KMS made the KEK for this request
	Adopt   bool          `json:"adopt"`         // cleartext found below is served
	Removed bool          `json:"removed"`
}

// Config is the datastore and the keys for a Request. The caller still owns all of the fields.
type Config struct {
	Store *datastore.Store
	Keys  *keys.Cache
	// Label is the name at a KMS of the n-th KEK of a place.
	Label func(place layout.FileID, n uint64) string
	// Writing calls f while BACKING may be written, or returns why it may not. nil: it may.
	Writing func(ctx context.Context, f func() error) error
	// TakeUp has the file system go by the settings as they are now. nil: nothing serves them.
	TakeUp func()
	// Look bounds the time in which a place is looked through for cleartext; 0: lookTime.
	Look time.Duration
}

// Do does r. Errors: ErrRequest, datastore.ErrChanged, those of datastore.Store.Edit, keys.ErrNoKey,
// and errors of BACKING. An error of any other kind says in words why r is refused.
func Do(ctx context.Context, c Config, r Request) (Result, error) {
	if err := r.check(); err != nil {
		return Result{}, err
	}
	if err := c.Store.Verify(ctx, c.Keys); err != nil {
		return Result{}, err
	}
	switch r.Do {
	case DoDefine:
		return c.define(ctx, &r)
	case DoRemove:
		return c.remove(ctx, &r)
	case DoSet:
		return c.set(ctx, &r)
	case DoUnset:
		return c.unset(ctx, &r)
	default:
		return c.rebind(ctx, &r)
	}
}

// check refuses a request that makes no sense in any datastore, and cleans its paths.
func (r *Request) check() error {
	var of, named bool // needs a path, a policy
	switch r.Do {
	case DoDefine, DoRemove:
		named = true
	case DoSet:
		of, named = true, true
	case DoUnset, DoRebind:
		of = true
	default:
		return fmt.Errorf("%w: %q is no change of policies", ErrRequest, r.Do)
	}
	if named && r.Name == "" {
		return fmt.Errorf("%w: no policy is named", ErrRequest)
	}
	if !of {
		return nil
	}
	at, err := cleanPath(string(r.Path))
	if err != nil {
		return err
	}
	r.Path = []byte(at)
	if len(r.From) == 0 {
		return nil
	}
	from, err := cleanPath(string(r.From))
	r.From = []byte(from)
	return err
}

// cleanPath is a path that a place may have.
func cleanPath(p string) (string, error) {
	switch {
	case !filepath.IsLocal(p) || strings.ContainsRune(p, 0):
		return "", fmt.Errorf("%w: path %q is not one below BACKING", ErrRequest, p)
	case !utf8.ValidString(p):
		return "", fmt.Errorf("%w: path %q is not UTF-8, which the settings are; rename it", ErrRequest, p)
	}
	p = path.Clean(p)
	for element := range strings.SplitSeq(p, "/") {
		if layout.Reserved(element) {
			return "", fmt.Errorf("%w: %s belongs to vmcryptfs", ErrRequest, p)
		}
	}
	return p, nil
}
