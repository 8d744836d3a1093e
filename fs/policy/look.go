package policy

import (
	"context"
	"errors"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// lookTime is how long a place is looked through for cleartext. A request at the control socket
// waits for it.
const lookTime = 20 * time.Second

// errFound ends a walk that has found what it looked for.
var errFound = errors.New("found")

// hasCleartext reports whether a file lies in clear, under a name that the rules places encrypt, in a
// directory at or below a path that is meant. true also where nobody can tell: a part could not be
// read, or there was no time.
func (c *Config) hasCleartext(ctx context.Context, at string, places *layout.Places, meant func(dir string) bool) bool {
	if gone, err := c.isGone(at); gone || err != nil {
		return !gone
	}
	limit := c.Look
	if limit == 0 {
		limit = lookTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	look := look{places: places, meant: meant}
	w := backing.Walk{Root: c.Store.Fd(), Visit: look.visit, Broken: func(_ string, err error) error { return err }}
	return w.From(ctx, at) != nil
}

// look is a walk under way.
type look struct {
	places *layout.Places
	meant  func(dir string) bool
	in     string // directory of the last entry, of which area and tagged are
	skip   bool
	area   *layout.Area
	tagged bool
}

// visit is Walk.Visit: errFound for a file that lies in clear and is to be encrypted.
func (l *look) visit(dir int, at string, e *backing.Entry) error {
	name := string(e.Name)
	if e.Kind != unix.S_IFREG || layout.Reserved(name) {
		return nil
	}
	if err := l.enter(dir, path.Dir(at)); err != nil || l.skip {
		return err
	}
	v := l.places.Classify(name, l.area, l.tagged)
	if v.Class == layout.Clear {
		return nil
	}
	b, err := backing.OpenFound(dir, name)
	if err != nil || b == nil {
		return err
	}
	defer b.Close()
	form, err := backing.Judge(b, v)
	if errors.Is(err, layout.ErrDamaged) { // no cleartext
		return nil
	}
	if err == nil && form == backing.Plain {
		err = errFound
	}
	return err
}

// enter looks what is meant by names in the directory dir at a path.
func (l *look) enter(dir int, at string) error {
	if l.in == at {
		return nil
	}
	l.in, l.area, l.tagged = at, l.places.At(at), false
	if l.skip = !l.meant(at); l.skip || !l.area.Tagged() {
		return nil
	}
	id, err := ReadTag(dir)
	l.tagged = id == l.area.Place.ID
	return err
}

// answers gives the function that reports whether cleartext in a directory is served if the place at a
// path adopts.
func answers(places *layout.Places, at string) func(dir string) bool {
	return func(dir string) bool {
		over := places.Over(dir)
		return dir == at || over != nil && over.Place.Path == at
	}
}
