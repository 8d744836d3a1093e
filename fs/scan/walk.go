package scan

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/policy"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// proveTime bounds the proof of the settings.
const proveTime = 10 * time.Second

// Config is the datastore of a scan. The caller still owns all of the fields.
type Config struct {
	Store *datastore.Store
	Keys  *keys.Cache // nil: no key server is asked, and the settings stay unproven
	Host  string      // datastore.HostID; empty: it is not known
	// Again reads the settings anew, after the walk. nil: they are as they were.
	Again func() (*layout.Settings, error)
	// Settle is how old a change must be before it counts as cut off; 0: 2 seconds.
	Settle time.Duration
}

// scanner is a scan under way.
type scanner struct {
	Config
	*Report
	judge judge
	asker *asker
	later later
	tags  tags
}

// Run looks through the datastore of c. An error is that of ctx, and the Report then says what was
// found so far; or of settings that hold no rules.
func Run(ctx context.Context, c Config) (*Report, error) {
	settings := c.Store.Settings()
	places, err := layout.NewPlaces(settings)
	if err != nil {
		return nil, fmt.Errorf("scan %s: %w", c.Store.Path(), err)
	}
	s := &scanner{
		Config: c, asker: newAsker(c.Keys), later: newLater(settings), tags: newTags(settings),
		Report: &Report{
			Backing: c.Store.Path(), FileSystem: fileSystem(c.Store.Fd()), Complete: true,
			Findings: []Finding{}, Kinds: map[string]int64{}, Notes: []string{},
		},
	}
	s.prove(ctx)
	s.judge = judge{places: places, proven: s.Verified}
	err = s.all(ctx)
	s.asker.tell(s.Report)
	s.Complete = s.Complete && err == nil
	s.sort()
	return s.Report, err
}

// all looks at everything.
func (s *scanner) all(ctx context.Context) error {
	if err := s.places(ctx); err != nil {
		return err
	}
	w := backing.Walk{Root: s.Store.Fd()}
	w.Broken = func(at string, err error) error { s.unread(at, err); return nil }
	w.Visit = func(dir int, at string, e *backing.Entry) error { return s.visit(ctx, dir, at, e) }
	if err := w.All(ctx); err != nil {
		return err
	}
	return s.settle(ctx)
}

// prove has the settings proven, where a key is at hand.
func (s *scanner) prove(ctx context.Context) {
	const so = "names are judged by the built-in rules and by the settings, and the stricter one decides"
	if !s.Store.Verified() && !s.asker.mayAsk() {
		s.note("the settings are unproven, for no key server is configured here: " + so)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, proveTime)
	defer cancel()
	err := s.Store.Verify(ctx, s.Keys)
	if s.Verified = err == nil; s.Verified {
		return
	}
	if errors.Is(err, keys.ErrSeal) || errors.Is(err, datastore.ErrUntrusted) {
		s.add(Finding{Kind: Settings, Path: settingsPath(), Why: err.Error()})
	}
	s.note(fmt.Sprintf("the settings are unproven (%v): %s", err, so))
}

// settingsPath is where the settings are, below BACKING.
func settingsPath() string { return path.Join(datastore.Dir, datastore.SettingsName) }

// places adds the places that do not hold, or whose new files get no key.
func (s *scanner) places(ctx context.Context) error {
	c := policy.Config{Store: s.Store}
	if s.asker.mayAsk() {
		c.Keys = s.Keys
	}
	list, err := policy.Places(ctx, c)
	if err != nil {
		return err
	}
	for i := range list {
		if p := &list[i]; p.Why != "" {
			s.add(Finding{Kind: Place, Path: p.Path, Place: p.Path, Policy: p.Policy, Why: p.Why})
		}
	}
	return ctx.Err()
}

// visit looks at one entry of BACKING. A directory with a reserved name is not entered by the walk.
func (s *scanner) visit(ctx context.Context, dir int, at string, e *backing.Entry) error {
	name, regular := string(e.Name), e.Kind == unix.S_IFREG
	if regular {
		s.Files++
	}
	switch {
	case regular && name == layout.PlaceTag:
		s.tag(dir, at)
		return nil
	case regular:
		return s.file(ctx, dir, at, name)
	case layout.Reserved(name):
		why := "the name is reserved, so it is hidden through the mount, and vmcryptfs makes nothing but files of such names"
		if e.Kind == unix.S_IFDIR {
			why += "; what is in the directory was not looked at"
			s.Complete = false
		}
		s.add(Finding{Kind: Reserved, Path: at, Why: why}.by(hidden()))
	}
	return nil
}
