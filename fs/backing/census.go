package backing

import (
	"context"
	"errors"
	"hash/maphash"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// Census counts the datastore's files by form and by what is wrong.
type Census struct {
	Encrypted   int64            `json:"encrypted"`
	Clear       int64            `json:"clear"`
	Empty       int64            `json:"empty"`       // no form yet
	Unencrypted int64            `json:"unencrypted"` // cleartext where the class says encrypt
	Damaged     int64            `json:"damaged"`
	Unsynced    int64            `json:"unsynced"` // header slots differ; also counted as encrypted
	Directories int64            `json:"directories"`
	Other       int64            `json:"other"`     // symbolic links, devices, …
	Leftovers   int64            `json:"leftovers"` // temporaries of other hosts, in no other count
	ByClass     map[string]int64 `json:"by_class"`  // by the rule's words: "disks", "logs", …
}

// Counter counts the files of one BACKING. All methods are safe for concurrent use, but for Keep:
// one call at a time.
type Counter struct {
	root    int                                     // immutable, as are these
	verdict func(dir int, at string) layout.Verdict // of a path below BACKING
	foreign func(name string) bool                  // a temporary of another host that is not alive
	seed    maphash.Seed                            // of remembered

	kept
}

// NewCounter counts below the directory root, which stays open as long as the Counter is used.
// verdict gives the verdict of a path below root, whose directory is open as dir; foreign reports whether a reserved name is that
// of a temporary which another host left.
func NewCounter(root int, verdict func(dir int, at string) layout.Verdict, foreign func(name string) bool) *Counter {
	c := &Counter{root: root, verdict: verdict, foreign: foreign, seed: maphash.MakeSeed()}
	c.kept.init()
	return c
}

// Take walks the datastore until done or ctx ends, with no key. each, if not nil, is called for
// every regular file with its path below BACKING, the form or what is wrong ("encrypted",
// "clear", "empty", "unencrypted", "damaged", "unsynced"), and the words of the rule for its
// name. What cannot be read is counted as other. Files that are as Keep saw them last are not
// opened.
func (c *Counter) Take(ctx context.Context, each func(path, form, rule string)) (Census, error) {
	w := c.begin()
	w.each = each
	err := w.take(ctx)
	return w.Census, err
}

// census is one walk over the datastore that counts.
type census struct {
	Census
	of    *Counter
	known remembered // from an earlier walk
	// each is called for every regular file, and saw for every entry with what it is; nil:
	// nobody asks. version is that of a regular file whose form may be remembered, or nil.
	each func(path, form, rule string)
	saw  func(s seen, version *Stamp, class layout.Class)
	// looking is the time that it took to look into files.
	looking time.Duration
	looks   int64 // files looked into
}

func (c *Counter) begin() *census {
	return &census{of: c, known: c.remembered(), Census: Census{ByClass: make(map[string]int64)}}
}

func (c *census) take(ctx context.Context) error {
	w := Walk{Root: c.of.root, Visit: func(dir int, at string, e *Entry) error {
		c.visit(ctx, dir, at, string(e.Name))
		return nil
	}}
	return w.All(ctx)
}

// visit counts the entry name of dir, whose path is at.
func (c *census) visit(ctx context.Context, dir int, at, name string) {
	if layout.Reserved(name) {
		if c.of.foreign(name) {
			c.Leftovers++
		}
		return
	}
	verdict := c.of.verdict(dir, at)
	s, version, err := c.examine(ctx, dir, name, verdict)
	if errors.Is(err, unix.ENOENT) {
		return
	}
	c.count(s, verdict.About)
	if c.saw != nil {
		c.saw(s, version, verdict.Class)
	}
	if c.each != nil && s.isFile() {
		c.each(at, s.String(), verdict.About)
	}
}

func (c *Census) count(s seen, about string) {
	switch s {
	case seenDirectory:
		c.Directories++
	case seenOther:
		c.Other++
	case seenUnsynced:
		c.Unsynced++
		c.Encrypted++
	case seenEncrypted:
		c.Encrypted++
	case seenClear:
		c.Clear++
	case seenEmpty:
		c.Empty++
	case seenUnencrypted:
		c.Unencrypted++
	case seenDamaged:
		c.Damaged++
	}
	if s.isFile() {
		c.ByClass[about]++
	}
}

// examine says what name in dir is, and of a regular file its version. A file that was
// seen as it is costs one call.
func (c *census) examine(ctx context.Context, dir int, name string, v layout.Verdict) (seen, *Stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return seenOther, nil, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return seenDirectory, nil, nil
	case unix.S_IFREG:
	default:
		return seenOther, nil, nil
	}
	version := StampOf(&st)
	if s, ok := c.known.find(hashOf(c.of.seed, version, v.Class)); ok {
		return s, &version, nil
	}
	begun := time.Now()
	defer func() { c.looking += time.Since(begun) }()
	c.looks++
	return seeFile(ctx, dir, name, v)
}

// seeFile looks into the file name in dir.
func seeFile(ctx context.Context, dir int, name string, v layout.Verdict) (seen, *Stamp, error) {
	b, st, err := Open(dir, name)
	if _, unfit := errors.AsType[*byname.UnfitError](err); unfit { // since a moment ago
		return seenOther, nil, nil
	}
	if err != nil {
		return seenOther, nil, err
	}
	defer b.Close()
	version := StampOf(st)
	return seeInto(ctx, b, v), &version, nil
}

func seeInto(ctx context.Context, b *cryptfile.OSFile, v layout.Verdict) seen {
	found, err := Examine(ctx, b, v)
	switch {
	case found.Form.IsClear() && found.Hidden: // by right, whatever is in it
		return seenClear
	case found.Hidden && errors.Is(err, layout.ErrUnsupported): // also of a newer version's header
		return seenDamaged
	case errors.Is(err, layout.ErrUnsupported): // not damage: a newer version's
		return seenEncrypted
	case errors.Is(err, layout.ErrDamaged):
		return seenDamaged
	case err != nil:
		return seenOther
	}
	switch found.Form {
	case Empty:
		return seenEmpty
	case Clear, Descriptor:
		return seenClear
	case Plain:
		return seenUnencrypted
	}
	if found.Slots.Differ {
		return seenUnsynced
	}
	return seenEncrypted
}
