package fs

import (
	"context"
	"errors"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
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

// census is one walk over the datastore that counts.
type census struct {
	Census
	fs    *FS
	known remembered // from an earlier walk
	// each is called for every regular file, and saw for every entry with what it is; nil:
	// nobody asks. version is that of a regular file whose form may be remembered, or nil.
	each func(path, form, rule string)
	saw  func(s seen, version *backing.Stamp, class layout.Class)
	// looking is the time that it took to look into files.
	looking time.Duration
	looks   int64 // files looked into
}

// TakeCensus walks the datastore until done or ctx ends, with no key. each, if not nil,
// is called for every regular file with its path below BACKING, the form or what is wrong
// ("encrypted", "clear", "empty", "unencrypted", "damaged", "unsynced"), and the words of
// the rule for its name. What cannot be read is counted as other. Files that are as
// KeepCensus saw them last are not opened.
func (f *FS) TakeCensus(ctx context.Context, each func(path, form, rule string)) (Census, error) {
	c := f.newCensus()
	c.each = each
	err := c.take(ctx)
	return c.Census, err
}

func (f *FS) newCensus() *census {
	return &census{fs: f, known: f.kept.remembered(), Census: Census{ByClass: make(map[string]int64)}}
}

func (c *census) take(ctx context.Context) error {
	return backing.Walk(ctx, c.fs.table.root().fd, "", func(dir int, at string, _ backing.Entry) error {
		name := path.Base(at)
		if layout.Reserved(name) {
			if c.fs.isForeign(name) {
				c.Leftovers++
			}
			return nil
		}
		verdict := c.fs.classify(name)
		s, version, err := c.examine(ctx, dir, name, verdict)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		c.count(s, verdict.About)
		if c.saw != nil {
			c.saw(s, version, verdict.Class)
		}
		if c.each != nil && s.isFile() {
			c.each(at, s.String(), verdict.About)
		}
		return nil
	})
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

// examine tells what name in dir is, and of a regular file its version. A file that was
// seen as it is costs one call.
func (c *census) examine(ctx context.Context, dir int, name string, v layout.Verdict) (seen, *backing.Stamp, error) {
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
	version := backing.StampOf(&st)
	if s, ok := c.known.find(c.fs.kept.hash(version, v.Class)); ok {
		return s, &version, nil
	}
	begun := time.Now()
	defer func() { c.looking += time.Since(begun) }()
	c.looks++
	return seeFile(ctx, dir, name, v)
}

// seeFile opens what name in dir is.
func seeFile(ctx context.Context, dir int, name string, v layout.Verdict) (seen, *backing.Stamp, error) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return seenOther, nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return seenOther, nil, err
	}
	file, err := backing.Reopen(fd, unix.O_RDONLY)
	if err != nil {
		return seenOther, nil, err
	}
	b := cryptfile.NewOSFile(file)
	defer b.Close()
	version := backing.StampOf(&st)
	return seeInto(ctx, b, v), &version, nil
}

func seeInto(ctx context.Context, b *cryptfile.OSFile, v layout.Verdict) seen {
	form, err := backing.Judge(b, v)
	if err != nil {
		return wrongBy(err)
	}
	switch form {
	case backing.Empty:
		return seenEmpty
	case backing.Clear, backing.Descriptor:
		return seenClear
	case backing.Plain:
		return seenUnencrypted
	}
	slots, err := backing.ReadHeader(ctx, b)
	switch {
	case errors.Is(err, layout.ErrUnsupported): // not damage: a newer version's
		return seenEncrypted
	case err != nil:
		return wrongBy(err)
	case slots.Differ:
		return seenUnsynced
	default:
		return seenEncrypted
	}
}

// wrongBy is what a file is that gave an error: its own, or BACKING's.
func wrongBy(err error) seen {
	if errors.Is(err, layout.ErrDamaged) {
		return seenDamaged
	}
	return seenOther
}
