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

// reloadEvery is the pause between two looks at the kms.toml files.
const reloadEvery = 2 * time.Second

// A kmsFile is one kms.toml with its providers.
type kmsFile struct {
	path      string
	text      []byte   // as last read
	providers []string // configured by the last text without mistakes
	trouble   string   // why the current text is not in use; empty: in use
	removed   []string // of providers, absent from the current text
}

// kmsChanges are the last changes of a provider's configuration while this process ran.
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

// keepReloading reads the files again and again and applies changes, until ctx ends.
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

// reload reads the files again and applies changes. A text with a mistake is logged once, and the
// providers stay as before.
//
// Reading a file may block for good (NFS whose server is away). reload returns when ctx ends, and
// only the reading goroutine stays behind.
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

// reloadAll reads all files. The caller holds the token of reloading.
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

// reloadFile reads one file and applies the changes. While the text, or a file named by the text,
// has a mistake, each call tries again.
func (s *KeySource) reloadFile(f *kmsFile, log *slog.Logger) {
	text, err := kmip.ReadText(f.path)
	if errors.Is(err, fs.ErrNotExist) && f.text == nil {
		return // no file, as at the start
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

// takeUpAll opens new providers and reconfigures the others. A mistake in one provider does not
// affect the others.
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

// fileOf gives the file with the provider name, or nil.
func (s *KeySource) fileOf(name string) *kmsFile {
	i := slices.IndexFunc(s.files, func(f *kmsFile) bool { return slices.Contains(f.providers, name) })
	if i < 0 {
		return nil
	}
	return s.files[i]
}

// takeUpOne opens the provider of c, or reconfigures the existing provider of the same name.
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

// changed keeps the changes of a provider, for status.
func (s *KeySource) changed(provider string, changes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == nil {
		s.changes = map[string]kmsChanges{}
	}
	s.changes[provider] = kmsChanges{time.Now(), changes}
}

// takeUp reads the files again, and returns an error unless the provider name is then configured.
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

// warnings gives the reasons for not using the current text of files.
func (s *KeySource) warnings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.troubles)
}
