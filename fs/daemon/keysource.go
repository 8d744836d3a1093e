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
	// KMS is a kms.toml. Where it is empty, $VMCRYPTFS_KMS counts, then the default place.
	KMS string `json:"kms"`
	// Dev asks for the development KMS, embedded.
	Dev bool `json:"dev"`
}

// KeySource is the way of this process to keys. Its methods are safe for concurrent use, but for
// Close, which comes last.
type KeySource struct {
	Cache  *keys.Cache
	server *devkms.Server // nil unless this process runs the development KMS
	dev    bool
	files  []*kmsFile // what the providers were configured by; after openKeys of who reloads alone

	reloading chan struct{} // holds one token while somebody takes up what changed in files

	mu       sync.Mutex            // guards what follows
	changes  map[string]kmsChanges // by provider
	troubles []string              // why files are not taken up as they are now
}

func newKeySource() *KeySource { return &KeySource{reloading: make(chan struct{}, 1)} }

// OpenKeys configures the providers that k names. It asks no server. A kms.toml that is missing in
// the default place is no error here, since a mount serves cleartext without keys: see Note.
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

// kmsPath is the kms.toml that path, the environment or custom names; named is false for
// the last.
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

// loadConfig reads a kms.toml, which may be missing if nobody named it.
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

// names are those of the providers.
func (s *KeySource) names() (names []string) {
	for _, p := range s.Cache.Providers() {
		names = append(names, p.Name())
	}
	return names
}

// KMIP gives the named providers, or all. It fails where there is none at all.
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

// Note says to a person why there is no provider at all. It is empty where there is one.
func (s *KeySource) Note() string {
	if len(s.Cache.Providers()) > 0 {
		return ""
	}
	return fmt.Sprintf("no key server is configured: %s does not exist; name one with --kms, or use --dev", s.files[0].path)
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

// startDev starts the development KMS, or finds the one that another process of this
// host (a mount, devkms serve) runs over the same directory, and gives its kms.toml.
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

// keepDev takes the development KMS over when the process that ran it has ended, until
// ctx ends. Nobody else may use s.server meanwhile.
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

// Close wipes the keys and ends what OpenKeys started. It is idempotent.
func (s *KeySource) Close() {
	if s.Cache != nil {
		s.Cache.Close()
	}
	if s.server != nil {
		s.server.Close()
	}
}
