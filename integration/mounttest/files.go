package mounttest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Path is a name seen through the mount.
func (d *Datastore) Path(name string) string { return filepath.Join(d.Mnt, name) }

// Below is the same name in BACKING.
func (d *Datastore) Below(name string) string { return filepath.Join(d.Backing, name) }

// Write makes a file through the mount.
func (d *Datastore) Write(name string, content []byte) {
	d.T.Helper()
	if err := os.WriteFile(d.Path(name), content, 0o644); err != nil {
		d.T.Fatal(err)
	}
}

// Read returns a file's content through the mount.
func (d *Datastore) Read(name string) []byte {
	d.T.Helper()
	b, err := os.ReadFile(d.Path(name))
	if err != nil {
		d.T.Fatal(err)
	}
	return b
}

// Form returns the form of name in BACKING: "encrypted", "clear" or "empty".
func (d *Datastore) Form(name string) string {
	d.T.Helper()
	form, err := FormOf(d.Below(name))
	if err != nil {
		d.T.Fatal(err)
	}
	return form
}

// WantForms checks the form of several files: name → form.
func (d *Datastore) WantForms(want map[string]string) {
	d.T.Helper()
	for name, form := range want {
		if got := d.Form(name); got != form {
			d.T.Errorf("%s is %s in BACKING, want %s", name, got, form)
		}
	}
}

// Absent checks that BACKING has none of these names.
func (d *Datastore) Absent(names ...string) {
	d.T.Helper()
	for _, name := range names {
		if _, err := os.Lstat(d.Below(name)); !os.IsNotExist(err) {
			d.T.Errorf("%s is in BACKING (%v), want nothing", name, err)
		}
	}
}

// Nest makes directories in the directory top, each in the one before: so many levels, each
// of 100 bytes of a path.
func Nest(t testing.TB, top, levels int) {
	t.Helper()
	name := strings.Repeat("d", 99)
	dir, err := unix.Dup(top)
	for range levels {
		if err == nil {
			err = unix.Mkdirat(dir, name, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		below, err := unix.Openat(dir, name, unix.O_PATH|unix.O_CLOEXEC, 0)
		unix.Close(dir)
		if err != nil {
			t.Fatal(err)
		}
		dir = below
	}
	unix.Close(dir)
}
