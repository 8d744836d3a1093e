package moves

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

func TestMain(m *testing.M) {
	unix.Umask(0)
	os.Exit(m.Run())
}

// kms is a provider with one key.
type kms struct{}

var material = bytes.Repeat([]byte{3, 5}, keys.KEKSize/2)

func (kms) Name() string { return "test" }
func (kms) Get(context.Context, string, func(*keys.KEK) bool) (*keys.KEK, keys.State, error) {
	k, err := keys.NewKEK("test", "k", material)
	return k, keys.Active, err
}
func (kms) Create(context.Context, string) (*keys.KEK, error)     { return nil, keys.ErrRefused }
func (kms) State(context.Context, string) (keys.State, error)     { return keys.Active, nil }
func (kms) Ready(context.Context, string) (c [16]byte, err error) { return c, nil }
func (kms) Health() []keys.ServerHealth                           { return nil }
func (kms) Close() error                                          { return nil }

// site is an unmounted datastore with a Manager.
type site struct {
	t       *testing.T
	backing string
	store   *datastore.Store
	cache   *keys.Cache
	fs      *fs.FS
	m       *Manager
	clear   bool // what Allowed says
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, backing: filepath.Join(dir, "b"), clear: true}
	s.must(os.Mkdir(s.backing, 0o755))
	kek, err := keys.NewKEK("test", "k", material)
	s.must(err)
	defer kek.Wipe()
	host := datastore.NewHost(filepath.Join(dir, "state"))
	s.must(host.Init(s.backing, layout.Settings{Format: 1, ID: keys.NewFileID(), Provider: "test", KEK: "k", Serial: 1}, kek))
	s.store, err = host.Open(s.backing, true)
	s.must(err)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s.cache = keys.NewCache(log, kms{})
	s.must(s.store.Verify(t.Context(), s.cache))
	s.fs, err = fs.New(fs.Config{Store: s.store, Keys: s.cache, Log: log})
	s.must(err)
	t.Cleanup(func() {
		for _, c := range []interface{ Close() error }{s.fs, s.cache, s.store} {
			s.must(c.Close())
		}
	})
	s.m = New(Config{
		FS: s.fs, Log: log, Allowed: func(string) bool { return s.clear },
		Edit: func(ctx context.Context, edit func(*layout.Settings) error) error {
			return s.store.Edit(ctx, s.cache, edit)
		},
	})
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// plant puts a file of n bytes in clear into BACKING.
func (s *site) plant(name string, n int) []byte {
	s.t.Helper()
	text := bytes.Repeat([]byte("0123456789abcde\n"), n/16)
	s.must(os.WriteFile(filepath.Join(s.backing, name), text, 0o640))
	return text
}

// run moves a file to the end.
func (s *site) run(t Task) {
	s.t.Helper()
	ids, err := s.m.Begin(s.t.Context(), []Task{t})
	s.must(err)
	s.must(s.m.Run(s.t.Context(), ids[0], t, func(context.Context, int64) error { return nil }))
	s.must(s.m.Forget(s.t.Context(), ids))
	if left := s.store.Settings().Moves; len(left) > 0 {
		s.t.Errorf("ids are left: %v", left)
	}
}

func (s *site) encrypted(name string) bool {
	s.t.Helper()
	fd, err := unix.Open(filepath.Join(s.backing, name), unix.O_RDONLY, 0)
	s.must(err)
	b := cryptfile.NewOSFile(fd)
	defer b.Close()
	is, err := cryptfile.IsEncrypted(b)
	s.must(err)
	return is
}

// TestUnmounted moves a log of an unmounted datastore to an encrypted file, to another key, and to
// clear again.
func TestUnmounted(t *testing.T) {
	s := newSite(t)
	text := s.plant("a.log", 3<<20)
	s.run(Task{"a.log", layout.MoveEncrypt})
	if !s.encrypted("a.log") {
		t.Fatal("a.log is in clear")
	}
	before, err := os.ReadFile(filepath.Join(s.backing, "a.log"))
	s.must(err)
	s.run(Task{"a.log", layout.MoveDeep})
	after, err := os.ReadFile(filepath.Join(s.backing, "a.log"))
	s.must(err)
	if bytes.Equal(before[1<<20:], after[1<<20:]) || !s.encrypted("a.log") {
		t.Error("the ciphertext is the same under another DEK")
	}
	s.run(Task{"a.log", layout.MoveDecrypt})
	if got, err := os.ReadFile(filepath.Join(s.backing, "a.log")); err != nil || !bytes.Equal(got, text) {
		t.Errorf("a.log is not in clear again, %v", err)
	}
	entries, err := os.ReadDir(s.backing)
	s.must(err)
	if len(entries) != 2 { // and .vmcryptfs
		t.Errorf("left: %v", entries)
	}
}

// TestPauseAndCancel: a paused move waits, and a cancelled one goes back.
func TestPauseAndCancel(t *testing.T) {
	s := newSite(t)
	text := s.plant("a.log", 3<<20)
	s.must(s.m.Pause())
	task := Task{"a.log", layout.MoveEncrypt}
	ids, err := s.m.Begin(t.Context(), []Task{task})
	s.must(err)
	done := make(chan error, 1)
	go func() { done <- s.m.Run(t.Context(), ids[0], task, func(context.Context, int64) error { return nil }) }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if list := s.m.List(); len(list) == 1 && list[0].State == Paused {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the move does not pause")
		}
	}
	s.must(s.m.Cancel("a.log"))
	if err := s.m.Resume("b.log"); err == nil {
		t.Error("a move of no file was resumed")
	}
	s.must(s.m.Resume())
	s.must(<-done)
	s.must(s.m.Forget(t.Context(), ids))
	if got, err := os.ReadFile(filepath.Join(s.backing, "a.log")); err != nil || !bytes.Equal(got, text) {
		t.Errorf("a.log is not in clear again, %v", err)
	}
}
