package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"vmcryptfs/advice"
	"vmcryptfs/keys"
	"vmcryptfs/keys/devkms"
	"vmcryptfs/keys/kmip"
)

// takeOverEvery is the pause between attempts to take the development KMS over.
const takeOverEvery = 2 * time.Second

// KeyConfig says where keys come from.
type KeyConfig struct {
	// KMS is the path of a kms.toml. Empty: $VMCRYPTFS_KMS, or without the variable the default
	// place.
	KMS string `json:"kms"`
	// Dev asks for the development KMS, embedded.
	Dev bool `json:"dev"`
}

// KeySource is the way of a process to keys. All methods but Close are safe for concurrent use.
// Close comes after the last call of every other method.
type KeySource struct {
	Cache  *keys.Cache
	server *devkms.Server // nil unless the process runs the development KMS
	dev    bool
	files  []*kmsFile // configure the providers; after OpenKeys only the holder of reloading may use them

	reloading chan struct{} // holds one token while a goroutine reads files again

	mu       sync.Mutex            // guards changes and troubles
	changes  map[string]kmsChanges // by provider
	troubles []string              // why the current text of files is not in use
}

func newKeySource() *KeySource { return &KeySource{reloading: make(chan struct{}, 1)} }

// OpenKeys configures the providers named by k, and connects to no server. The caller closes the
// KeySource. A missing kms.toml in the default place is no error, since a mount serves cleartext
// without keys (see Note).
func OpenKeys(ctx context.Context, k KeyConfig, log *slog.Logger) (_ *KeySource, err error) {
	if err := CheckFIPS(); err != nil {
		return nil, err
	}
	s := newKeySource()
	s.dev = k.Dev
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	var configs []kmip.Config
	if k.Dev {
		path, err := s.startDev(ctx, log)
		if err != nil {
			return nil, err
		}
		if configs, err = s.loadConfig(path, true); err != nil {
			return nil, fmt.Errorf("development KMS: %w", err)
		}
	}
	if !k.Dev || k.KMS != "" {
		path, named, err := kmsPath(k.KMS)
		if err != nil {
			return nil, err
		}
		more, err := s.loadConfig(path, named)
		if err != nil {
			return nil, advice.Usage(err)
		}
		configs = append(configs, more...)
	}
	providers, err := openProviders(configs, log)
	if err != nil {
		return nil, err
	}
	s.Cache = keys.NewCache(log, providers...)
	return s, nil
}

// kmsPath gives the kms.toml of path, of the environment, or of the default place. named is false
// for the default place.
func kmsPath(path string) (_ string, named bool, err error) {
	if path == "" {
		path = os.Getenv("VMCRYPTFS_KMS")
	}
	if path != "" {
		return path, true, nil
	}
	if path, err = configFile(); err != nil {
		return "", false, fmt.Errorf("find kms.toml: %w", err)
	}
	return path, false, nil
}

// loadConfig reads a kms.toml. Only a file named by a user must exist.
func (s *KeySource) loadConfig(path string, named bool) ([]kmip.Config, error) {
	path, err := filepath.Abs(path) // a daemon works in /
	if err != nil {
		return nil, err
	}
	file := &kmsFile{path: path}
	s.files = append(s.files, file)
	configs, err := file.read()
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil, nil
	}
	return configs, err
}

// names gives the names of the providers.
func (s *KeySource) names() (names []string) {
	for _, p := range s.Cache.Providers() {
		names = append(names, p.Name())
	}
	return names
}

// KMIP gives the providers with the given names, or all providers for no names. Without any
// provider KMIP returns an error (advice.UsageError), and so for an unknown name.
func (s *KeySource) KMIP(names []string) ([]*kmip.Provider, error) {
	if note := s.Note(); note != "" {
		return nil, advice.Usagef("%s", note)
	}
	if len(names) == 0 {
		names = s.names()
	}
	var list []*kmip.Provider
	for _, name := range names {
		p, ok := s.Cache.Provider(name).(*kmip.Provider)
		if !ok {
			return nil, advice.Usagef("provider %q is not in kms.toml, which has: %s; choose one of these", name, strings.Join(s.names(), ", "))
		}
		list = append(list, p)
	}
	return list, nil
}

// Note says, for people, why no provider is configured. Note is empty where one is.
func (s *KeySource) Note() string {
	if len(s.Cache.Providers()) > 0 {
		return ""
	}
	return fmt.Sprintf("no key server is configured: %s does not exist; name one with --kms, or use --dev", s.files[0].path)
}

// Explain adds the Note to err, where there is one. nil stays nil.
func (s *KeySource) Explain(err error) error {
	if note := s.Note(); err != nil && note != "" {
		return fmt.Errorf("%w: %s", err, note)
	}
	return err
}

// openProviders opens all or none.
func openProviders(configs []kmip.Config, log *slog.Logger) ([]keys.Provider, error) {
	var providers []keys.Provider
	seen := map[string]bool{}
	var err error
	for _, c := range configs {
		if seen[c.Name] {
			err = advice.Usagef("provider %q is configured twice: rename one in its kms.toml", c.Name)
			break
		}
		seen[c.Name] = true
		var p keys.Provider
		if p, err = kmip.Open(c, log); err != nil {
			break
		}
		providers = append(providers, p)
	}
	if err != nil {
		for _, p := range providers {
			p.Close()
		}
		return nil, err
	}
	return providers, nil
}

// startDev starts the development KMS and gives the path of its kms.toml. Where another process of
// this host (a mount, devkms serve) runs a development KMS over the same directory, startDev
// starts none.
func (s *KeySource) startDev(ctx context.Context, log *slog.Logger) (config string, err error) {
	dir, err := DevKMSDir()
	if err != nil {
		return "", fmt.Errorf("development KMS: %w", err)
	}
	s.server, err = devkms.Start(ctx, dir, "", log)
	if errors.Is(err, devkms.ErrRunning) {
		return filepath.Join(dir, "kms.toml"), nil
	}
	if err != nil {
		return "", fmt.Errorf("development KMS in %s: %w", dir, err)
	}
	return s.server.ConfigPath(), nil
}

// keepDev waits, until ctx ends, for the end of the process with the development KMS, and then
// starts the KMS in this process. Meanwhile only keepDev may use s.server.
func (s *KeySource) keepDev(ctx context.Context, log *slog.Logger) {
	if !s.dev || s.server != nil {
		return
	}
	tick := time.NewTicker(takeOverEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := s.startDev(ctx, log)
		switch {
		case err != nil:
			log.Warn("the development KMS has ended and cannot be taken over yet", "error", err)
		case s.server != nil:
			log.Info("the development KMS is taken over", "address", s.server.Addr())
			return
		}
	}
}

// Choose gives the provider for a new datastore: the named one or, without a name, the only one.
func (s *KeySource) Choose(name string) (keys.Provider, error) {
	if note := s.Note(); note != "" {
		return nil, advice.Usagef("%s", note)
	}
	if name == "" {
		names := s.names()
		if len(names) != 1 {
			return nil, advice.Usagef("kms.toml has %d providers: choose one with --provider (%s)", len(names), strings.Join(names, ", "))
		}
		name = names[0]
	}
	p := s.Cache.Provider(name)
	if p == nil {
		return nil, advice.Usagef("provider %q is not in kms.toml, which has: %s; choose one of these", name, strings.Join(s.names(), ", "))
	}
	return p, nil
}

// Close wipes the keys and ends the work begun by OpenKeys. Close is idempotent.
func (s *KeySource) Close() {
	if s.Cache != nil {
		s.Cache.Close()
	}
	if s.server != nil {
		s.server.Close()
	}
}
