package moves

import (
	"bytes"
	"context"
	"errors"
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
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, backing: filepath.Join(dir, "b")}
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
	s.fs, err = fs.New(fs.Config{Store: s.store, Keys: s.cache, Log: log, Unencrypted: fs.Write})
	s.must(err)
	t.Cleanup(func() {
		for _, c := range []interface{ Close() error }{s.m, s.fs, s.cache, s.store} {
			s.must(c.Close())
		}
	})
	s.m = s.manager()
	return s
}

// manager is a Manager of the site, as an unmounted BACKING has it.
func (s *site) manager() *Manager {
	return New(Config{
		FS: s.fs, Store: s.store, Keys: s.cache, Log: slog.New(slog.NewTextHandler(s.t.Output(), nil)),
		Edit: func(ctx context.Context, edit func(*layout.Settings) error) error {
			err := s.store.Edit(ctx, s.cache, edit)
			s.fs.TakeUpSettings()
			return err
		},
	})
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

// edit changes the sealed settings.
func (s *site) edit(change func(*layout.Settings)) {
	s.t.Helper()
	s.must(s.m.config.Edit(s.t.Context(), func(set *layout.Settings) error { change(set); return nil }))
}

// begin starts the move of a file.
func (s *site) begin(t Task) *job {
	s.t.Helper()
	jobs, err := s.m.begin(s.t.Context(), []Task{t})
	s.must(err)
	s.m.start(jobs[0])
	return jobs[0]
}

// wait waits for the end of a job.
func (s *site) wait(j *job) error {
	s.t.Helper()
	select {
	case <-j.ended:
		return j.err
	case <-time.After(time.Minute):
		s.t.Fatalf("the move does not end: %+v", j.show())
		return nil
	}
}

// apply does a request that is to be complete.
func (s *site) apply(r Request) Summary {
	s.t.Helper()
	sum, err := s.m.Apply(s.t.Context(), r, func(Event) error { return nil })
	s.must(err)
	if !sum.Complete {
		s.t.Errorf("%+v: not complete", sum)
	}
	s.noneLeft()
	return sum
}

func (s *site) noneLeft() {
	s.t.Helper()
	if left := s.store.Settings().Moves; len(left) > 0 {
		s.t.Errorf("ids are left: %v", left)
	}
}

// until waits for a view of the one move.
func (s *site) until(what string, is func(View) bool) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		list := s.m.List()
		if len(list) == 1 && is(list[0]) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not come: %+v", what, list)
		}
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
	s.must(s.wait(s.begin(Task{"a.log", layout.MoveEncrypt})))
	if !s.encrypted("a.log") {
		t.Fatal("a.log is in clear")
	}
	before, err := os.ReadFile(filepath.Join(s.backing, "a.log"))
	s.must(err)
	s.must(s.wait(s.begin(Task{"a.log", layout.MoveDeep})))
	after, err := os.ReadFile(filepath.Join(s.backing, "a.log"))
	s.must(err)
	if bytes.Equal(before[1<<20:], after[1<<20:]) || !s.encrypted("a.log") {
		t.Error("the ciphertext is the same under another DEK")
	}
	s.must(s.wait(s.begin(Task{"a.log", layout.MoveDecrypt})))
	s.isClear("a.log", text)
	s.noneLeft()
	entries, err := os.ReadDir(s.backing)
	s.must(err)
	if len(entries) != 2 { // and .vmcryptfs
		t.Errorf("left: %v", entries)
	}
}

// isClear checks a file that lies in clear.
func (s *site) isClear(name string, text []byte) {
	s.t.Helper()
	if got, err := os.ReadFile(filepath.Join(s.backing, name)); err != nil || !bytes.Equal(got, text) {
		s.t.Errorf("%s is not in clear again, %v", name, err)
	}
}

// TestPauseAndCancel: a paused move waits, and a cancelled one goes back.
func TestPauseAndCancel(t *testing.T) {
	s := newSite(t)
	text := s.plant("a.log", 200<<20)
	jobs, err := s.m.begin(t.Context(), []Task{{"a.log", layout.MoveEncrypt}})
	s.must(err)
	jobs[0].told = func(int64) { jobs[0].set(func() { jobs[0].paused = true }) }
	s.m.start(jobs[0])
	s.until("a pause", func(v View) bool { return v.State == Paused && v.Watermark > 0 && v.Kind == "encrypt" })
	if _, err := s.m.Do(t.Context(), Change{Do: DoResume, Which: []string{"b.log"}}); !errors.Is(err, ErrNoMove) {
		t.Errorf("a move of no file was resumed: %v", err)
	}
	if _, err := s.m.Do(t.Context(), Change{Do: "stop"}); !errors.Is(err, ErrRequest) {
		t.Errorf("%v, want a bad request", err)
	}
	jobs[0].told = nil
	_, err = s.m.Do(t.Context(), Change{Do: DoCancel, Which: []string{"a.log"}})
	s.must(err)
	if err := s.wait(jobs[0]); !errors.Is(err, errTurned) {
		t.Errorf("%v, want %v", err, errTurned)
	}
	s.isClear("a.log", text)
	s.noneLeft()
}
