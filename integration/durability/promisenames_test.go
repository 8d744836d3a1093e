package durability

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"vmcryptfs/integration/mounttest"
)

// syncDirOf is fsync of the directory containing path.
func syncDirOf(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	return dir.Sync()
}

// replaces saves a file as editors do: a new file, synced, is renamed over the old one. The file
// has the old content or the new one, whole. temp may be of another class than name.
type replaces struct {
	name, temp string
	durable    int // the version required at least
	asked      int
}

// content is long, and each version has a length of its own.
func (r *replaces) content(version int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "version %d of %s\n", version, r.name), 40+version%50)
}

func (r *replaces) prepare(d *mounttest.Datastore) error {
	return writeDurably(d.Path(r.name), r.content(0))
}

func (r *replaces) work(d *mounttest.Datastore, rng *rand.Rand, answered func() error) error {
	for {
		r.asked++
		f, err := os.OpenFile(d.Path(r.temp), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(r.content(r.asked))
		err = errors.Join(err, f.Sync(), f.Close())
		if err != nil {
			return err
		}
		if err := os.Rename(d.Path(r.temp), d.Path(r.name)); err != nil {
			return err
		}
		if err := answered(); err != nil {
			return err
		}
		if rng.IntN(3) != 0 {
			continue
		}
		if err := syncDirOf(d.Path(r.name)); err != nil {
			return err
		}
		if err := answered(); err != nil {
			return err
		}
		r.durable = r.asked
	}
}

func (r *replaces) check(d *mounttest.Datastore) error {
	_, err := r.read(d)
	return err
}

func (r *replaces) read(d *mounttest.Datastore) (version int, err error) {
	got, err := os.ReadFile(d.Path(r.name))
	if err != nil {
		return 0, broken("%s: %v", r.name, err)
	}
	for version := r.durable; version <= r.asked; version++ {
		if bytes.Equal(got, r.content(version)) {
			return version, nil
		}
	}
	return 0, broken("%s: %d bytes, %.40q…, are no version from %d to %d", r.name, len(got), got, r.durable, r.asked)
}

func (r *replaces) adopt(d *mounttest.Datastore) (err error) {
	r.durable, err = r.read(d)
	r.asked = r.durable
	return err
}

// newcomers makes, moves and removes files in a directory, of every class. After a sync of the
// directory, a file's existence is settled for good. Before, the file may exist or not, and an
// existing file opens.
type newcomers struct {
	dir   string
	made  int
	files map[string]*newcomer
}

// newcomer is a file that may exist.
type newcomer struct {
	content []byte
	synced  bool  // the content
	there   *bool // nil: maybe
}

func (n *newcomers) prepare(d *mounttest.Datastore) error {
	n.files = map[string]*newcomer{}
	if err := os.Mkdir(d.Path(n.dir), 0o755); err != nil {
		return err
	}
	return syncDirOf(d.Path(n.dir))
}

func (n *newcomers) path(d *mounttest.Datastore, name string) string {
	return filepath.Join(d.Path(n.dir), name)
}

func (n *newcomers) work(d *mounttest.Datastore, rng *rand.Rand, answered func() error) error {
	for {
		var err error
		switch rng.IntN(5) {
		case 0, 1:
			err = n.create(d, rng, answered)
		case 2:
			err = n.move(d)
		case 3:
			err = n.remove(d)
		case 4:
			err = n.sync(d, answered)
		}
		if err != nil {
			return err
		}
		if err := answered(); err != nil {
			return err
		}
	}
}

func (n *newcomers) create(d *mounttest.Datastore, rng *rand.Rand, answered func() error) error {
	n.made++
	name := fmt.Sprintf("new-%d%s", n.made, []string{".log", ".nvram", ".vmx", ".img", ".bin"}[n.made%5])
	c := &newcomer{content: bytes.Repeat([]byte(name+" "), 1+rng.IntN(300))}
	n.files[name] = c
	f, err := os.OpenFile(n.path(d, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(c.content); err != nil || rng.IntN(3) == 0 {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := answered(); err != nil {
		return err
	}
	c.synced = true
	return nil
}

// any returns a file known to exist, in a map's order.
func (n *newcomers) any() (string, *newcomer) {
	for name, c := range n.files {
		if c.there != nil && *c.there {
			return name, c
		}
	}
	return "", nil
}

// move renames, half of the time to a name of another class.
func (n *newcomers) move(d *mounttest.Datastore) error {
	name, c := n.any()
	if c == nil {
		return nil
	}
	n.made++
	to := fmt.Sprintf("moved-%d%s", n.made, filepath.Ext(name))
	if n.made%2 == 0 && c.synced {
		to = fmt.Sprintf("moved-%d%s", n.made, []string{".vmx", ".bin"}[n.made/2%2])
	}
	c.there = nil
	n.files[to] = &newcomer{content: c.content, synced: c.synced}
	return os.Rename(n.path(d, name), n.path(d, to))
}

func (n *newcomers) remove(d *mounttest.Datastore) error {
	name, c := n.any()
	if c == nil {
		return nil
	}
	c.there = nil
	return os.Remove(n.path(d, name))
}

// sync makes the present state the truth.
func (n *newcomers) sync(d *mounttest.Datastore, answered func() error) error {
	entries, err := os.ReadDir(d.Path(n.dir))
	if err != nil {
		return err
	}
	if err := syncDirOf(n.path(d, "any")); err != nil {
		return err
	}
	if err := answered(); err != nil {
		return err
	}
	n.settle(entries)
	return nil
}

func (n *newcomers) settle(entries []fs.DirEntry) {
	yes, no := true, false
	for _, c := range n.files {
		c.there = &no
	}
	for _, e := range entries {
		if c := n.files[e.Name()]; c != nil {
			c.there = &yes
		}
	}
}

func (n *newcomers) check(d *mounttest.Datastore) error {
	entries, err := os.ReadDir(d.Path(n.dir))
	if err != nil {
		return broken("%s: %v", n.dir, err)
	}
	shown := map[string]bool{}
	for _, e := range entries {
		if n.files[e.Name()] == nil {
			return broken("%s/%s was never made", n.dir, e.Name())
		}
		shown[e.Name()] = true
	}
	for name, c := range n.files {
		if c.there != nil && *c.there != shown[name] {
			return broken("%s/%s: there %t, want %t", n.dir, name, shown[name], *c.there)
		}
		if shown[name] {
			if err := c.check(n.path(d, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// check compares the content with the written bytes: all of them after a sync, else some.
func (c *newcomer) check(path string) error {
	got, err := os.ReadFile(path)
	switch {
	case err != nil:
		return broken("%v", err)
	case c.synced && !bytes.Equal(got, c.content):
		return broken("%s: %d bytes are not the %d that were synced", path, len(got), len(c.content))
	case len(got) > len(c.content):
		return broken("%s: %d bytes, %d were written", path, len(got), len(c.content))
	}
	for i, b := range got {
		if b != 0 && b != c.content[i] {
			return broken("%s: byte %d of %d was never written", path, i, len(got))
		}
	}
	return nil
}

func (n *newcomers) adopt(d *mounttest.Datastore) error {
	entries, err := os.ReadDir(d.Path(n.dir))
	if err != nil {
		return err
	}
	n.settle(entries)
	for name, c := range n.files {
		if !*c.there {
			delete(n.files, name)
		} else if c.content, err = os.ReadFile(n.path(d, name)); err != nil {
			return err
		} else {
			c.synced = true
		}
	}
	return nil
}
