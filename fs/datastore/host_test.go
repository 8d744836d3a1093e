package datastore

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

func TestHostID(t *testing.T) {
	const machine = "0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		name, content string // of the machine id file; "-": there is none
		random        bool
	}{
		{"machine id", machine + "\n", false},
		{"none", "-", true},
		{"empty", "", true},
		{"uninitialized", "uninitialized\n", true},
		{"short", "0123\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			h.machineID = filepath.Join(t.TempDir(), "machine-id")
			if c.content != "-" {
				if err := os.WriteFile(h.machineID, []byte(c.content), 0o444); err != nil {
					t.Fatal(err)
				}
			}
			id, err := h.ID()
			if err != nil || !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(id) {
				t.Fatalf("id %q, %v", id, err)
			}
			if strings.Contains(machine, id) {
				t.Errorf("id %s shows the machine id", id)
			}
			if again, err := h.ID(); err != nil || again != id {
				t.Errorf("then %q, %v; want %q", again, err, id)
			}
			other := newHost(t)
			other.machineID = h.machineID
			got, err := other.ID()
			if err != nil || (got == id) == c.random {
				t.Errorf("with another state directory %q, %v; random %v", got, err, c.random)
			}
		})
	}
}

func TestHostIDRandomOnce(t *testing.T) {
	state := t.TempDir()
	var mu sync.Mutex
	ids := map[string]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			h := NewHost(state)
			h.machineID = filepath.Join(state, "none")
			id, err := h.ID()
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			ids[id] = true
		})
	}
	wg.Wait()
	if len(ids) != 1 {
		t.Errorf("ids %v, want one", ids)
	}
}

func TestHostIDDamaged(t *testing.T) {
	h := newHost(t)
	h.machineID = filepath.Join(t.TempDir(), "none")
	if err := os.Mkdir(h.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.state, "host-id"), []byte("../../x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if id, err := h.ID(); err == nil {
		t.Errorf("id %q", id)
	}
}

// The directories of root, and of a user by hostDir's rules.
func TestDirs(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", "/xdg/config")
	t.Setenv("XDG_STATE_HOME", "relative is ignored")
	t.Setenv("XDG_RUNTIME_DIR", "/xdg/run")
	t.Setenv("HOME", "/home/u")
	for _, c := range []struct {
		name       string
		dir        func(uid int) (string, error)
		root, user string
	}{
		{"config", configDir, "/etc/vmcryptfs", "/xdg/config/vmcryptfs"},
		{"state", stateDir, "/var/lib/vmcryptfs", "/home/u/.local/state/vmcryptfs"},
		{"run", runDir, "/run/vmcryptfs", "/xdg/run/vmcryptfs"},
	} {
		for uid, want := range map[int]string{0: c.root, 1000: c.user} {
			if got, err := c.dir(uid); err != nil || got != want {
				t.Errorf("%s of user %d: %s, %v; want %s", c.name, uid, got, err, want)
			}
		}
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	if got, err := runDir(1000); err != nil || got != "/home/u/.local/state/vmcryptfs/run" {
		t.Errorf("run without XDG_RUNTIME_DIR: %s, %v", got, err)
	}
	t.Setenv("HOME", "")
	if got, err := stateDir(1000); err == nil {
		t.Errorf("state without a home: %s", got)
	}
	if got, err := stateDir(0); err != nil || got != "/var/lib/vmcryptfs" {
		t.Errorf("root's state without a home: %s, %v", got, err)
	}
}
