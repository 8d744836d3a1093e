package fs

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

func TestLockUnlock(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.log", "log")
	r.write("b", "secret")
	r.write("c", "open")
	r.write("d.vmdk", descriptor)
	r.idle()
	c := r.open("c", os.O_RDWR)
	d, err := os.OpenFile(r.path("d.vmdk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r.cache.Lock()

	_, err = os.ReadFile(r.path("b"))
	wantErrno(t, "open", err, unix.ENOKEY)
	wantErrno(t, "create", os.WriteFile(r.path("new"), []byte("x"), 0o644), unix.ENOKEY)
	if _, err := os.Stat(r.under("new")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was created without a key: %v", err)
	}
	wantErrno(t, "mknod", unix.Mknod(r.path("node"), unix.S_IFREG|0o644, 0), unix.ENOKEY)
	wantErrno(t, "truncate", os.Truncate(r.path("b"), 3), unix.ENOKEY)
	wantErrno(t, "rename that encrypts", os.Rename(r.path("a.log"), r.path("a")), unix.ENOKEY)
	wantErrno(t, "rename that decrypts", os.Rename(r.path("b"), r.path("b.log")), unix.ENOKEY)
	_, err = d.WriteAt([]byte(secret), 0)
	wantErrno(t, "write that encrypts a descriptor", err, unix.ENOKEY)
	r.wantRead("d.vmdk", descriptor)

	// What needs no key works.
	r.wantRead("a.log", "log")
	wantErrno(t, "create in clear", os.WriteFile(r.path("new.log"), []byte("x"), 0o644), 0)
	if _, err := c.WriteAt([]byte("OP"), 0); err != nil {
		t.Errorf("write to an open file: %v", err)
	}
	r.wantRead("c", "OPen")
	if st, err := os.Stat(r.path("b")); err != nil || st.Size() != 6 {
		t.Errorf("stat: %v, %v", st, err)
	}
	wantErrno(t, "rename", os.Rename(r.path("b"), r.path("e")), 0)
	wantErrno(t, "chmod", os.Chmod(r.path("e"), 0o600), 0)
	wantErrno(t, "link", os.Link(r.path("e"), r.path("f")), 0)
	wantErrno(t, "unlink", os.Remove(r.path("f")), 0)

	r.cache.Unlock()
	r.wantRead("e", "secret")
	r.write("new", "x")
	r.wantForm("new", "encrypted")
	if r.fs.Stats().NoKey == 0 {
		t.Error("refusals for lack of a key are not counted")
	}
}

// TestKeyNotThere: without the file's key, an open is ENOKEY within 5 s, and nothing is lost.
func TestKeyNotThere(t *testing.T) {
	for name, lose := range map[string]func(*fakeKMS){
		"missing":     func(k *fakeKMS) { delete(k.material, testKEK) },
		"another key": func(k *fakeKMS) { k.material[testKEK] = make([]byte, keys.KEKSize) },
		"down":        func(k *fakeKMS) { k.down.Store(true) },
		"hanging":     func(k *fakeKMS) { k.hang.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.write("a", "secret")
			// The settings stay proven; only the key is gone.
			r.dropKeys()
			r.kms.mu.Lock()
			lose(r.kms)
			r.kms.mu.Unlock()
			began := time.Now()
			_, err := os.ReadFile(r.path("a"))
			wantErrno(t, "open", err, unix.ENOKEY)
			wantErrno(t, "create", os.WriteFile(r.path("b"), nil, 0o644), unix.ENOKEY)
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("two refusals took %v", took)
			}
			if _, err := os.Stat(r.under("b")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("b was created: %v", err)
			}
		})
	}
}

// TestUnverified: until the settings are proven no file is created, and only files clear by the
// built-in rules can be opened.
func TestUnverified(t *testing.T) {
	r := newRig(t, func(s *layout.Settings, _ *Config) { s.Clear = []string{"*.txt"} })
	r.write("a.txt", "clear by the settings")
	r.wantForm("a.txt", "clear")
	r.write("b.log", "log")
	r.unmount()
	r.kms.down.Store(true)
	r.mount()
	if r.store.Verified() {
		t.Fatal("verified without a KMS")
	}
	for _, name := range []string{"new", "new.log", "new.txt", "new.vmdk"} {
		wantErrno(t, "create "+name, os.WriteFile(r.path(name), nil, 0o644), unix.ENOKEY)
		if _, err := os.Stat(r.under(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was created: %v", name, err)
		}
	}
	wantErrno(t, "mkdir", os.Mkdir(r.path("dir"), 0o755), 0) // no content
	_, err := os.ReadFile(r.path("a.txt"))                   // the settings' rule is not proven
	wantErrno(t, "open by a rule not proven", err, unix.EACCES)
	r.wantRead("b.log", "log")

	r.kms.down.Store(false)
	r.cache.Unlock() // forgets the failure
	r.write("new", "x")
	r.wantForm("new", "encrypted")
	r.wantRead("a.txt", "clear by the settings")
}

func TestKeyWaitDoesNotBlockOthers(t *testing.T) {
	r := newRig(t, nil)
	r.write("a", "secret")
	r.write("b.log", "log")
	r.remount()
	r.dropKeys()
	r.kms.hang.Store(true)
	began := r.kms.gets.Load()
	// A signal of Go's scheduler may have the open tried anew, after the rename.
	a := byname.ProcPath(int(r.open("a", unix.O_PATH).Fd()))
	opened := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(a)
		opened <- err
	}()
	r.until("the KMS is asked", func() bool { return r.kms.gets.Load() > began })
	if _, err := os.Stat(r.path("a")); err != nil {
		t.Error(err)
	}
	r.wantRead("b.log", "log")
	wantErrno(t, "rename", os.Rename(r.path("a"), r.path("c")), 0)
	select {
	case <-opened:
		t.Error("others waited as long for a key that is none of theirs")
	default:
		wantErrno(t, "open", <-opened, unix.ENOKEY)
	}
}
