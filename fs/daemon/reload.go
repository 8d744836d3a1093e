package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"vmcryptfs/keys/kmip"
)

// reloadEvery is how soon a daemon takes up what changed in a kms.toml.
const reloadEvery = 2 * time.Second

// A kmsFile is one kms.toml that providers were configured by.
type kmsFile struct {
	path      string
	text      []byte   // as it was last read
	providers []string // that were in it when it was last right
	trouble   string   // why it is not taken up as it is now; empty: it is
	removed   []string // providers that are not in it any more
}

// kmsChanges are how a provider's configuration changed last while this process ran.
type kmsChanges struct {
	at      time.Time
	changes []string
}

// read reads the file.
func (f *kmsFile) read() ([]kmip.Config, error) {
	text, err := kmip.ReadText(f.path)
	if err != nil {
		return nil, fmt.Errorf("read KMS configuration: %w", err)
	}
	f.text = text
	configs, err := kmip.ParseConfig(f.path, text)
	if err == nil {
		f.providers = namesOf(configs)
	}
	return configs, err
}

func namesOf(configs []kmip.Config) (names []string) {
	for _, c := range configs {
		names = append(names, c.Name)
	}
	return names
}

// keepReloading takes up what changes in the files, until ctx ends.
func (s *KeySource) keepReloading(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.reload(ctx, log)
		}
	}
}

// reload takes up what changed in the files since they were last read. What cannot be
// used is logged once, and the providers stay as they were.
//
// A file may lie where a read waits for good (NFS whose server is away): reload waits no
// longer than ctx, and then the reading alone stays behind.
func (s *KeySource) reload(ctx context.Context, log *slog.Logger) {
	select {
	case s.reloading <- struct{}{}:
	case <-ctx.Done():
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { <-s.reloading }()
		s.reloadAll(log)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// reloadAll is reload by who has the token.
func (s *KeySource) reloadAll(log *slog.Logger) {
	var troubles []string
	for _, f := range s.files {
		s.reloadFile(f, log)
		if f.trouble != "" {
			troubles = append(troubles, f.trouble)
		}
		for _, name := range f.removed {
			troubles = append(troubles, fmt.Sprintf("provider %s is in %s no more, and serves on with what was there: put it back, or vmcryptfs rekey --drop %s what is under its keys and mount again", name, f.path, name))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.troubles = troubles
}

// reloadFile takes up one file. It is tried again and again while something in it, or in
// the files that it names, is wrong.
func (s *KeySource) reloadFile(f *kmsFile, log *slog.Logger) {
	text, err := kmip.ReadText(f.path)
	if errors.Is(err, fs.ErrNotExist) && f.text == nil {
		return // as it was from the start
	}
	if err == nil && f.trouble == "" && bytes.Equal(text, f.text) {
		return
	}
	var configs []kmip.Config
	if err == nil {
		f.text = text
		configs, err = kmip.ParseConfig(f.path, text)
	}
	if err == nil {
		err = s.takeUpAll(f, configs, log)
	}
	trouble := ""
	if err != nil {
		trouble = fmt.Sprintf("the key servers' configuration changed and cannot be used, the old one stays: %v", err)
	}
	if trouble != "" && trouble != f.trouble {
		log.Error(trouble)
	}
	f.trouble = trouble
}

// takeUpAll opens providers that are new and changes those that are not. One that cannot be
// used does not keep the others from it.
func (s *KeySource) takeUpAll(f *kmsFile, configs []kmip.Config, log *slog.Logger) error {
	var errs []error
	for _, c := range configs {
		if other := s.fileOf(c.Name); other != nil && other != f {
			errs = append(errs, fmt.Errorf("provider %q is configured twice: rename it in %s or in %s", c.Name, f.path, other.path))
			continue
		}
		if err := s.takeUpOne(c, log); err != nil {
			errs = append(errs, err)
			continue
		}
		if !slices.Contains(f.providers, c.Name) {
			f.providers = append(f.providers, c.Name)
		}
	}
	was := f.removed
	f.removed = nil
	for _, name := range f.providers {
		if slices.Contains(namesOf(configs), name) {
			continue
		}
		f.removed = append(f.removed, name)
		if !slices.Contains(was, name) {
			log.Warn("a provider was removed from the key servers' configuration, and serves on with what was there", "provider", name, "config", f.path)
		}
	}
	return errors.Join(errs...)
}

// fileOf is the file that a provider was configured by, or nil.
func (s *KeySource) fileOf(name string) *kmsFile {
	i := slices.IndexFunc(s.files, func(f *kmsFile) bool { return slices.Contains(f.providers, name) })
	if i < 0 {
		return nil
	}
	return s.files[i]
}

// takeUpOne opens a provider, or changes the one of that name.
func (s *KeySource) takeUpOne(c kmip.Config, log *slog.Logger) error {
	p, ok := s.Cache.Provider(c.Name).(*kmip.Provider)
	if !ok {
		p, err := kmip.Open(c, log)
		if err != nil {
			return err
		}
		if err := s.Cache.Add(p); err != nil {
			return err
		}
		log.Info("provider taken up", "provider", c.Name, "servers", strings.Join(c.Servers, ", "))
		s.changed(c.Name, "new")
		return nil
	}
	changes, err := p.Reconfigure(c)
	if err != nil || len(changes) == 0 {
		return err
	}
	var list []string
	for _, change := range changes {
		list = append(list, change.String())
		log.Info("the configuration of a provider changed", "provider", c.Name, "key", change.Key, "old", change.Old, "new", change.New)
	}
	s.changed(c.Name, list...)
	return nil
}

// changed keeps what changed of a provider, for status.
func (s *KeySource) changed(provider string, changes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == nil {
		s.changes = map[string]kmsChanges{}
	}
	s.changes[provider] = kmsChanges{time.Now(), changes}
}

// takeUp takes up a provider that is there once the files are read as they are now.
func (s *KeySource) takeUp(ctx context.Context, name string, log *slog.Logger) error {
	s.reload(ctx, log)
	if s.Cache.Provider(name) != nil {
		return nil
	}
	if troubles := s.warnings(); len(troubles) > 0 {
		return errors.New(strings.Join(troubles, "; "))
	}
	var paths []string
	for _, f := range s.files {
		paths = append(paths, f.path)
	}
	return fmt.Errorf("provider %q is not in %s", name, strings.Join(paths, " or "))
}

// lastChanges are how the providers' configurations changed last.
func (s *KeySource) lastChanges() map[string]kmsChanges {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.changes)
}

// warnings are why files are not taken up as they are now.
func (s *KeySource) warnings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.troubles)
}
