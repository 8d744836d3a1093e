package fs

import (
	"context"
	"errors"
	"path"

	"golang.org/x/sys/unix"

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

// TakeCensus walks the datastore until done or ctx ends, with no key. each, if not nil,
// is called for every regular file with its path below BACKING, the form or what is wrong
// ("encrypted", "clear", "empty", "unencrypted", "damaged", "unsynced"), and the words of
// the rule for its name. What cannot be read is counted as other.
func (f *FS) TakeCensus(ctx context.Context, each func(path, form, rule string)) (Census, error) {
	c := Census{ByClass: make(map[string]int64)}
	err := walk(ctx, f.table.root().fd, "", func(dir int, at string, e dirEntry) error {
		name := path.Base(at)
		if layout.Reserved(name) {
			if f.isForeign(name) {
				c.Leftovers++
			}
			return nil
		}
		verdict := f.classify(name)
		form, err := examine(ctx, dir, name, verdict)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		c.count(form, verdict.About)
		if each != nil && form != "directory" && form != "other" {
			each(at, form, verdict.About)
		}
		return nil
	})
	return c, err
}

func (c *Census) count(form, about string) {
	switch form {
	case "directory":
		c.Directories++
		return
	case "other":
		c.Other++
		return
	case "unsynced":
		c.Unsynced++
		c.Encrypted++
	case "encrypted":
		c.Encrypted++
	case "clear":
		c.Clear++
	case "empty":
		c.Empty++
	case "unencrypted":
		c.Unencrypted++
	default:
		c.Damaged++
	}
	c.ByClass[about]++
}

// examine tells what name in dir is, in Census' words.
func examine(ctx context.Context, dir int, name string, v layout.Verdict) (string, error) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "other", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "other", err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory", nil
	case unix.S_IFREG:
	default:
		return "other", nil
	}
	file, err := openBacking(fd, unix.O_RDONLY)
	if err != nil {
		return "other", err
	}
	b := cryptfile.NewOSFile(file)
	defer b.Close()
	return examineFile(ctx, b, v), nil
}

func examineFile(ctx context.Context, b *cryptfile.OSFile, v layout.Verdict) string {
	form, err := judge(b, v)
	if err != nil {
		return wrongBy(err)
	}
	if form != formEncrypted {
		return form.String()
	}
	slots, err := readHeader(ctx, b)
	switch {
	case errors.Is(err, layout.ErrUnsupported): // not damage: a newer version's
		return "encrypted"
	case err != nil:
		return wrongBy(err)
	case slots.Differ:
		return "unsynced"
	default:
		return "encrypted"
	}
}

// wrongBy is the word for a file that gave an error: its own, or BACKING's.
func wrongBy(err error) string {
	if errors.Is(err, layout.ErrDamaged) {
		return "damaged"
	}
	return "other"
}
