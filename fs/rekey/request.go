package rekey

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

var (
	// ErrRequest: what is asked for makes no sense, and nothing was done.
	ErrRequest = errors.New("rekey: bad request")
	// ErrLastLocker: without the dropped provider nothing would open the file.
	ErrLastLocker = errors.New("it would lose the last locker that opens it")
	// ErrLockersFull: every locker of the header is in use.
	ErrLockersFull = fmt.Errorf("all %d lockers are in use: drop a provider first", layout.MaxLockers)
)

// Request says what is to be done to which files.
type Request struct {
	// Paths are files and directories below BACKING, without symbolic links; "." is
	// the whole datastore.
	Paths []string
	// To is an existing key of the target provider, New has it make one. Neither: the
	// datastore's current KEK; at another provider the newest key that was made there
	// for this datastore, or a new one.
	To  string
	New bool
	// Add names the target provider; empty: the datastore's own.
	Add string
	// Drop names a provider whose lockers go. Alone, with no To, New and Add, it
	// changes nothing else.
	Drop string
}

// Config is what Run works with; all of it stays the caller's.
type Config struct {
	Store *datastore.Store // locked
	Keys  *keys.Cache
	// Label is the name of the datastore's n-th KEK at a KMS.
	Label func(n uint64) string
	// Settle waits until files that are being made under the settings as they were
	// have their names; nil: nothing else changes the datastore.
	Settle func()
}

// Event tells how far Run is: once before the first file, and after each.
type Event struct {
	Provider string // of the target KEK; empty: lockers are dropped only
	KEK      string // its KMIP Unique Identifier
	Created  bool   // at the KMS, by this run
	Current  bool   // it became the datastore's current KEK in this run
	Path     string // the last file; empty: none yet
	Pass     int    // from 1
	Done     int64  // files looked at in this pass, clear ones too
	Total    int64  // files to be looked at in a pass; 0: not counted yet
	Files    int64  // encrypted files seen in this pass
	Rekeyed  int64  // in all passes
	Failed   int64  // in this pass
}

// Failure is a file or directory that is not as asked for, and why.
type Failure struct {
	Path string // below BACKING
	Err  error
}

// maxFailures bounds the failures that a Summary lists.
const maxFailures = 1000

// Summary is what was done.
type Summary struct {
	Provider string // of the target KEK; empty: only dropped
	KEK      string // its KMIP Unique Identifier
	Created  bool   // at the KMS, by this run
	Current  bool   // it became the datastore's current KEK in this run
	Files    int64  // encrypted files in the last pass
	Already  int64  // of the first pass, with nothing to do
	Rekeyed  int64  // rewritten, in all passes
	Clear    int64  // files that are not encrypted, in the last pass
	Passes   int
	Failed   int64     // in the last pass
	Failures []Failure // of the last pass, the first 1000
	Complete bool      // every file in Paths is as asked for
}

// Err is nil if the summary is Complete, else all Failures in one.
func (s *Summary) Err() error {
	if s.Complete {
		return nil
	}
	why := make([]error, len(s.Failures))
	for i, f := range s.Failures {
		why[i] = f.Err
	}
	return &IncompleteError{Failed: s.Failed, Errs: why}
}

// IncompleteError says that files remain.
type IncompleteError struct {
	Failed int64
	Errs   []error // why, of some of them
}

// Error is one line.
func (e *IncompleteError) Error() string {
	s := fmt.Sprintf("not done: %d files or directories remain", e.Failed)
	if len(e.Errs) > 0 {
		s += fmt.Sprintf(", the first one for: %v", e.Errs[0])
	}
	return s
}

// Unwrap gives Errs.
func (e *IncompleteError) Unwrap() []error { return e.Errs }

// whole tells if the request is for the whole datastore.
func (r *Request) whole() bool { return slices.Contains(r.Paths, ".") }

// onlyDrops tells if no KEK is asked for.
func (r *Request) onlyDrops() bool { return r.Drop != "" && r.Add == "" && r.To == "" && !r.New }

// check finds what makes no sense in a datastore with settings s; it completes r.
func (r *Request) check(s *layout.Settings) error {
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
	if r.New && r.To != "" {
		return fmt.Errorf("%w: a new key and key %q exclude one another", ErrRequest, r.To)
	}
	if r.Drop == s.Provider && r.whole() && (r.Add == "" || r.Add == r.Drop) {
		return fmt.Errorf("%w: new files get their keys from provider %q: add the one that takes its place", ErrRequest, r.Drop)
	}
	if r.Add == "" && !r.onlyDrops() {
		r.Add = s.Provider
	}
	if r.Drop != "" && r.Drop == r.Add {
		return fmt.Errorf("%w: provider %q cannot be both added and dropped", ErrRequest, r.Drop)
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
