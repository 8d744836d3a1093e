package fs

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// rule replaces the rules of the mounted datastore, as a change of its settings does.
func (r *rig) rule(encrypt, clear []string) {
	r.t.Helper()
	next := *r.fs.store.Settings()
	next.Encrypt, next.Clear = encrypt, clear
	err := r.fs.keys.Use(r.t.Context(), r.fs.store.KEK(), func(k *keys.KEK) error { return r.fs.store.Change(next, k) })
	if err != nil {
		r.t.Fatal(err)
	}
	r.fs.TakeUpSettings()
}

// TestRulesReplaced: open files go on; files opened or made later go by the new rules.
func TestRulesReplaced(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.log", "line\n")
	r.write("b.iso", "image")
	r.wantForm("a.log", "clear")
	r.wantForm("b.iso", "encrypted")
	open, err := os.OpenFile(r.path("a.log"), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.rule([]string{"*.log"}, []string{"*.iso"})
	if _, err := open.WriteString("more\n"); err != nil {
		t.Errorf("a log that was open before: %v", err)
	}
	_, err = os.Open(r.path("a.log"))
	wantErrno(t, "open of cleartext that is encrypted by the new rules", err, unix.EACCES)
	if err := open.Close(); err != nil {
		t.Error(err)
	}
	r.write("c.log", "line\n")
	r.write("d.iso", "image")
	r.wantForm("c.log", "encrypted")
	r.wantForm("d.iso", "clear")
	r.wantForm("b.iso", "encrypted") // and works
	r.wantRead("b.iso", "image")
	r.rule(nil, nil)
	r.wantRead("a.log", "line\nmore\n")
	r.write("e.log", "line\n")
	r.wantForm("e.log", "clear")
}

// TestRulesReplacedBesideCreates: after a change of the rules has returned, no file is made or
// named by the old ones.
func TestRulesReplacedBesideCreates(t *testing.T) {
	r := newRig(t, nil)
	const changes = 200
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range changes {
			r.write(fmt.Sprint("x", i, ".txt"), "")
			if err := os.Rename(r.path(fmt.Sprint("x", i, ".txt")), r.path(fmt.Sprint("x", i, ".log"))); err != nil {
				t.Error(err)
			}
			r.write(fmt.Sprint("y", i, ".log"), "line\n")
		}
	}()
	for i := range changes {
		encrypt := []string(nil)
		if i%2 == 0 {
			encrypt = []string{"*.log"}
		}
		r.rule(encrypt, nil)
		if i%2 != 0 {
			continue
		}
		name := fmt.Sprint("z", i, ".log")
		r.write(name, "line\n")
		r.wantForm(name, "encrypted")
	}
	<-done
}

// TestPlaceOfRemoved: the KEK of a removed file is that of its last place.
func TestPlaceOfRemoved(t *testing.T) {
	r := newRig(t, func(s *layout.Settings, _ *Config) { s.Clear = []string{"*.iso"} })
	r.write("a.iso", "")
	n, err := lookedUp(r.fs, r.fs.table.Root().In("a.iso"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.fs.table.Forget(n.ID, 1)
	want := r.fs.table.Root().In("a.iso")
	if got := r.fs.placeOf(n); got != want {
		t.Errorf("place %v", got)
	}
	if err := os.Remove(r.path("a.iso")); err != nil {
		t.Fatal(err)
	}
	if got := r.fs.placeOf(n); got != want {
		t.Errorf("place of the removed file %v", got)
	}
}
