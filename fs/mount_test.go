package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/transport"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

func TestMain(m *testing.M) {
	unix.Umask(0) // as the program does
	goleak.VerifyTestMain(m)
}

const testKEK = "kek-1"

// fakeKMS is a provider with one key in memory.
type fakeKMS struct {
	mu       sync.Mutex
	material map[string][]byte
	down     atomic.Bool // not reachable
	hang     atomic.Bool // answers nothing
	gets     atomic.Int64
}

func newFakeKMS() *fakeKMS {
	key := make([]byte, keys.KEKSize)
	for i := range key {
		key[i] = byte(i * 7)
	}
	return &fakeKMS{material: map[string][]byte{testKEK: key}}
}

func (k *fakeKMS) Name() string { return "test" }

func (k *fakeKMS) Get(ctx context.Context, id string, _ func(*keys.KEK) bool) (*keys.KEK, keys.State, error) {
	k.gets.Add(1)
	if k.hang.Load() {
		<-ctx.Done()
		return nil, keys.StateUnknown, errors.Join(keys.ErrUnreachable, ctx.Err())
	}
	if k.down.Load() {
		return nil, keys.StateUnknown, keys.ErrUnreachable
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	m, ok := k.material[id]
	if !ok {
		return nil, keys.StateUnknown, keys.ErrNotFound
	}
	kek, err := keys.NewKEK("test", id, m)
	return kek, keys.Active, err
}

func (k *fakeKMS) Create(context.Context, string) (*keys.KEK, error) { return nil, keys.ErrRefused }

func (k *fakeKMS) State(context.Context, string) (keys.State, error) {
	if k.down.Load() || k.hang.Load() {
		return keys.StateUnknown, keys.ErrUnreachable
	}
	return keys.Active, nil
}

func (k *fakeKMS) Ready(ctx context.Context, id string) (check [16]byte, err error) {
	_, err = k.State(ctx, id)
	return check, err
}

func (k *fakeKMS) Health() []keys.ServerHealth { return nil }
func (k *fakeKMS) Close() error                { return nil }

// rig is a datastore, mounted.
type rig struct {
	t       *testing.T
	backing string
	mnt     string
	state   string
	kms     *fakeKMS
	cache   *keys.Cache
	store   *datastore.Store
	fs      *FS
	server  transport.Server
	config  Config
	prepare func(*FS) // before it serves; nil: as it is
}

// newRig makes a datastore in a new directory and mounts it. change may alter the
// settings and the configuration.
func newRig(t *testing.T, change func(*layout.Settings, *Config)) *rig {
	t.Helper()
	return newRigAt(t, t.TempDir(), change)
}

func newRigAt(t *testing.T, dir string, change func(*layout.Settings, *Config)) *rig {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("these tests mount: run them as root")
	}
	r := &rig{t: t, kms: newFakeKMS(), backing: filepath.Join(dir, "backing"), mnt: filepath.Join(dir, "mnt"), state: filepath.Join(dir, "state")}
	for _, d := range []string{r.backing, r.mnt} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := layout.Settings{Format: 1, ID: keys.NewFileID(), Provider: "test", KEK: testKEK, Serial: 1}
	if change != nil {
		change(&s, &r.config)
	}
	kek, err := keys.NewKEK("test", testKEK, r.kms.material[testKEK])
	if err != nil {
		t.Fatal(err)
	}
	defer kek.Wipe()
	if err := datastore.NewHost(r.state).Init(r.backing, s, kek); err != nil {
		t.Fatal(err)
	}
	r.mount()
	t.Cleanup(r.unmount)
	return r
}

// mount opens the datastore and mounts it; the settings are verified if the KMS answers.
func (r *rig) mount() {
	r.t.Helper()
	var err error
	if r.store, err = datastore.NewHost(r.state).Open(r.backing, true); err != nil {
		r.t.Fatal(err)
	}
	r.cache = keys.NewCache(slog.New(slog.DiscardHandler), r.kms)
	if err := r.store.Trust("", "", false); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.store.Verify(ctx, r.cache); err != nil && !errors.Is(err, keys.ErrNoKey) {
		r.t.Fatal(err)
	}
	c := r.config
	c.Store, c.Keys = r.store, r.cache
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(r.t.Output(), nil))
	}
	if r.fs, err = New(c); err != nil {
		r.t.Fatal(err)
	}
	if r.prepare != nil {
		r.prepare(r.fs)
	}
	r.server, err = transport.Serve(r.mnt, r.fs.Raw(), transport.Options{FsName: r.backing, AllowOther: true, ReadOnly: c.ReadOnly, Extra: []string{"suid", "dev"}, Log: c.Log,
		OnInit: func(n transport.Notifier) { r.fs.SetNotifier(n) }})
	if err != nil {
		r.t.Fatal(err)
	}
}

// unmount ends the mount; idempotent.
func (r *rig) unmount() {
	if r.server == nil {
		return
	}
	if err := r.server.Unmount(false); err != nil {
		r.t.Errorf("unmount: %v", err)
		if err := r.server.Unmount(true); err != nil {
			r.t.Errorf("lazy unmount: %v", err)
			return
		}
	}
	r.server.Wait()
	r.server = nil
	for _, c := range []interface{ Close() error }{r.fs, r.cache, r.store} {
		if err := c.Close(); err != nil {
			r.t.Errorf("close: %v", err)
		}
	}
}

// idle waits until the kernel has sent the release of every close(2), which comes later.
func (r *rig) idle() {
	r.t.Helper()
	r.idleBut(0)
}

// idleBut is idle while n files stay open.
func (r *rig) idleBut(n int64) {
	r.t.Helper()
	r.until(fmt.Sprintf("%d files are open", n), func() bool { return r.fs.Stats().OpenFiles == n })
}

// until waits until done reports true.
func (r *rig) until(what string, is func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("not within 2 min: %s", what)
		}
	}
}

// dropKeys makes the cache ask the KMS anew, and leaves the datastore unlocked.
func (r *rig) dropKeys() {
	r.idle()
	r.cache.Lock()
	if !r.cache.Locked() {
		r.t.Fatal("not locked")
	}
	r.cache.Unlock()
}

func (r *rig) remount() {
	r.t.Helper()
	r.unmount()
	r.mount()
}

// path is a name below the mountpoint, under its name below BACKING.
func (r *rig) path(name string) string  { return filepath.Join(r.mnt, name) }
func (r *rig) under(name string) string { return filepath.Join(r.backing, name) }

// open opens a file of the mount until the test's end.
func (r *rig) open(name string, flags int) *os.File {
	r.t.Helper()
	f, err := os.OpenFile(r.path(name), flags, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = f.Close() })
	return f
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path(name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// plant puts a file into BACKING, as other hands would.
func (r *rig) plant(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(r.under(name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) read(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(r.path(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// form is the form of name in BACKING, found without code of this module: "encrypted", "empty", or
// "clear".
func (r *rig) form(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(r.under(name))
	switch {
	case err != nil:
		r.t.Fatal(err)
	case len(b) == 0:
		return "empty"
	case len(b) >= 1<<20 && string(b[:8]) == "\x89VMCRYPT":
		return "encrypted"
	}
	return "clear"
}

func (r *rig) wantForm(name, want string) {
	r.t.Helper()
	if got := r.form(name); got != want {
		r.t.Errorf("%s is %s in BACKING, want %s", name, got, want)
	}
}

func (r *rig) wantRead(name, want string) {
	r.t.Helper()
	if got := r.read(name); got != want {
		r.t.Errorf("%s holds %.60q (%d bytes), want %.60q (%d)", name, got, len(got), want, len(want))
	}
}

// wantErrno checks for one errno.
func wantErrno(t *testing.T, what string, err error, want unix.Errno) {
	t.Helper()
	if want == 0 && err == nil {
		return
	}
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

const descriptor = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\nRW 2048 FLAT \"a-flat.vmdk\" 0\n"
