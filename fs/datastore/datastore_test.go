package datastore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

func TestInitOpenVerify(t *testing.T) {
	s := newSite(t)
	st := s.open(s.host)
	if got := st.Settings(); got.ID != testID || got.KEK != "k1" || got.Provider != "corp" || got.Serial != 1 {
		t.Errorf("settings %+v", got)
	}
	if st.Verified() {
		t.Error("verified before Verify")
	}
	c := s.cache()
	for range 2 {
		if err := st.Verify(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if !st.Verified() {
		t.Error("not verified")
	}
	want, err := filepath.EvalSymlinks(s.backing)
	if err != nil || st.Path() != want {
		t.Errorf("path %s, want %s (%v)", st.Path(), want, err)
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstat(st.Fd(), &a), unix.Stat(s.backing, &b)); err != nil || a.Ino != b.Ino {
		t.Errorf("descriptor of inode %d, want %d (%v)", a.Ino, b.Ino, err)
	}
	for range 2 {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestInitLeaves(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	s := newSite(t)
	var names []string
	entries, err := os.ReadDir(filepath.Join(s.backing, Dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "datastore.toml lock" {
		t.Errorf("files %q", got)
	}
	if fi, err := os.Stat(s.path(SettingsName)); err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v; want 0644 whatever the umask", fi.Mode(), err)
	}
	if fi, err := os.Stat(filepath.Join(s.host.state, memoryName)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the memory %v, %v", fi.Mode(), err)
	}
}

func TestInitRefuses(t *testing.T) {
	s := newSite(t)
	before := s.read()
	if err := s.host.Init(s.backing, s.settings("k1"), s.kek("k1")); !errors.Is(err, ErrExists) {
		t.Errorf("again: %v, want ErrExists", err)
	}
	if err := s.host.Init(filepath.Join(s.backing, "none"), s.settings("k1"), s.kek("k1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	empty := t.TempDir()
	if err := s.host.Init(empty, s.settings("k2"), s.kek("k1")); err == nil || !strings.Contains(err.Error(), `"k2"`) {
		t.Errorf("another KEK than named: %v", err)
	}
	bad := s.settings("k1")
	bad.Serial = 0
	if err := s.host.Init(empty, bad, s.kek("k1")); err == nil || !strings.Contains(err.Error(), "serial") {
		t.Errorf("bad settings: %v", err)
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) != 0 {
		t.Errorf("refused, and left %v, %v", entries, err)
	}
	if !bytes.Equal(s.read(), before) {
		t.Error("settings changed")
	}
}

// The leftovers of Init after a crash are no datastore, and Init continues from there.
func TestInitAfterCrash(t *testing.T) {
	for _, c := range []struct {
		name  string
		leave func(t *testing.T, dir string) error
	}{
		{"directory", func(*testing.T, string) error { return nil }},
		{"lock", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, lockName), []byte("1 host\n"), 0o644)
		}},
		{"half a temporary", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, SettingsName+".new"), []byte("format ="), 0o600)
		}},
		{"a link for a temporary", func(t *testing.T, dir string) error {
			return os.Symlink(filepath.Join(t.TempDir(), "victim"), filepath.Join(dir, SettingsName+".new"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &site{t: t, backing: t.TempDir(), host: newHost(t), kms: &kms{name: "corp", keys: map[string]string{"k1": "one"}}}
			dir := filepath.Join(s.backing, Dir)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := c.leave(t, dir); err != nil {
				t.Fatal(err)
			}
			if _, err := s.host.Open(s.backing, false); !errors.Is(err, ErrNone) {
				t.Errorf("open: %v, want ErrNone", err)
			}
			s.init(s.settings("k1"))
			if err := s.mount(s.host, false); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(filepath.Join(dir, SettingsName+".new")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("temporary left: %v", err)
			}
		})
	}
}

// A host with unwritable memory makes no datastore: the host would not know the datastore
// afterwards.
func TestInitWithoutState(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, backing: t.TempDir(), kms: &kms{name: "corp", keys: map[string]string{"k1": "one"}}}
	if err := NewHost(filepath.Join(file, "state")).Init(s.backing, s.settings("k1"), s.kek("k1")); err == nil {
		t.Error("no error")
	}
	if _, err := newHost(t).Open(s.backing, false); !errors.Is(err, ErrNone) {
		t.Errorf("open: %v, want ErrNone", err)
	}
}

func TestOpenBad(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(s *site) error
		want  error  // nil: a SettingsError
		words string // in the message
	}{
		{"no datastore", func(s *site) error { return os.RemoveAll(s.path("")) }, ErrNone, ""},
		{"no settings", func(s *site) error { return os.Remove(s.path(SettingsName)) }, ErrNone, ""},
		{"no directory", func(s *site) error { return os.RemoveAll(s.backing) }, os.ErrNotExist, ""},
		{"linked directory", func(s *site) error {
			moved := filepath.Join(s.t.TempDir(), "moved")
			return errors.Join(os.Rename(s.path(""), moved), os.Symlink(moved, s.path("")))
		}, nil, Dir + ": a symbolic link"},
		{"linked settings", func(s *site) error {
			moved := filepath.Join(s.t.TempDir(), "moved")
			return errors.Join(os.Rename(s.path(SettingsName), moved), os.Symlink(moved, s.path(SettingsName)))
		}, nil, SettingsName + ": a symbolic link"},
		{"settings in a pipe", func(s *site) error {
			return errors.Join(os.Remove(s.path(SettingsName)), unix.Mkfifo(s.path(SettingsName), 0o644))
		}, nil, "no regular file"},
		{"settings a directory", func(s *site) error {
			return errors.Join(os.Remove(s.path(SettingsName)), os.Mkdir(s.path(SettingsName), 0o755))
		}, nil, "no regular file"},
		{"10 MiB", func(s *site) error {
			return os.WriteFile(s.path(SettingsName), bytes.Repeat([]byte("# x\n"), 10<<18), 0o644)
		}, nil, SettingsName + ": 10485760 bytes"},
		{"empty", func(s *site) error { return os.Truncate(s.path(SettingsName), 0) }, nil, "datastore.toml"},
		{"truncated", func(s *site) error { return os.Truncate(s.path(SettingsName), int64(len(s.read())-2)) }, nil, "datastore.toml"},
		{"binary", func(s *site) error { return os.WriteFile(s.path(SettingsName), []byte("\x00\xff"), 0o644) }, nil, "datastore.toml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			if err := c.spoil(s); err != nil {
				t.Fatal(err)
			}
			for _, exclusive := range []bool{false, true} {
				st, err := s.host.Open(s.backing, exclusive)
				if err == nil {
					st.Close()
					t.Fatal("opened")
				}
				if c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) ||
					!strings.Contains(err.Error(), s.backing) {
					t.Errorf("error %v, want %v about %q", err, c.want, c.words)
				}
				var settings *layout.SettingsError
				if errors.As(err, &settings) != (c.want == nil) {
					t.Errorf("%v is a SettingsError: %v", err, c.want != nil)
				}
			}
		})
	}
}

// Settings cut at any byte do not open as settings: the seal ends the file.
func TestOpenTruncated(t *testing.T) {
	s := newSite(t)
	whole := s.read()
	for n := range whole {
		s.write(whole[:n])
		st, err := s.host.Open(s.backing, false)
		if err == nil {
			st.Close()
			t.Fatalf("opened with %d of %d bytes", n, len(whole))
		}
		var parse *layout.SettingsError
		if !errors.As(err, &parse) {
			t.Fatalf("%d bytes: %v, want a SettingsError", n, err)
		}
	}
}
