package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/policy"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// setPolicy gives the directory vm1 a policy.
func setPolicy(name string) policy.Request {
	return policy.Request{Do: policy.DoSet, Path: []byte("vm1"), Name: name}
}

func TestChangePolicies(t *testing.T) {
	s := newSettingsSite(t)
	s.must(os.Mkdir(filepath.Join(s.store.Path(), "vm1"), 0o755))
	_, err := s.ChangePolicies(t.Context(), policy.Request{Do: policy.DoDefine, Name: "gold", Encrypt: true, KEK: layout.KEKOfPlace})
	s.must(err)
	result, err := s.ChangePolicies(t.Context(), setPolicy("gold"))
	s.must(err)
	if len(result.Places) != 1 || !result.Places[0].Created || result.Places[0].KEK.Provider != "dev" {
		t.Errorf("result %+v", result)
	}
	if got := s.logged.String(); !strings.Contains(got, "policies changed") || !strings.Contains(got, "path=vm1") {
		t.Errorf("log %q", got)
	}
	list, err := s.Policies(t.Context())
	if err != nil || len(list.Places) != 1 || !list.Places[0].Holds || list.Places[0].Why != "" || !list.Verified {
		t.Errorf("list %+v, %v", list, err)
	}
	_, err = s.ChangePolicies(t.Context(), policy.Request{Do: policy.DoDefine, Name: "x", Encrypt: true, KEK: layout.KEKOfPlace, Provider: "away"})
	if !errors.Is(err, wire.ErrRequest) || !strings.Contains(err.Error(), `provider "away" is not in `) {
		t.Errorf("%v, want that the provider is not configured", err)
	}
}

// TestChangePoliciesRefused: what would refuse the change does before a key is made or a tag is
// written.
func TestChangePoliciesRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(s *settingsSite) error
		want    error
	}{
		{"read-only", func(s *settingsSite) error { return s.fs.SetReadOnly(true) }, unix.EROFS},
		{"locked", func(s *settingsSite) error { s.keys.Cache.Lock(); return nil }, keys.ErrLocked},
		{"changed in BACKING", func(s *settingsSite) error { return os.WriteFile(s.path(), []byte("#\n"), 0o644) }, datastore.ErrChanged},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSettingsSite(t)
			s.must(os.Mkdir(filepath.Join(s.store.Path(), "vm1"), 0o755))
			s.must(c.prepare(s))
			for _, name := range []string{"clear", "gold"} {
				if _, err := s.ChangePolicies(t.Context(), setPolicy(name)); !errors.Is(err, c.want) {
					t.Errorf("%s: %v, want %v", name, err, c.want)
				}
			}
			if _, err := os.Stat(filepath.Join(s.store.Path(), "vm1", layout.PlaceTag)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("tag: %v, want none", err)
			}
			if got := s.store.Settings().Serial; got != 1 {
				t.Errorf("serial %d, want 1", got)
			}
		})
	}
}
