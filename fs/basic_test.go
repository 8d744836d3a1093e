package fs

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestClasses: bytes written under each kind of name read back, also after a remount, and lie in
// BACKING in the form of the name's class.
func TestClasses(t *testing.T) {
	r := newRig(t, nil)
	want := map[string]string{
		"vm.vmx":       "clear",
		"vmware.log":   "clear",
		"vm.xml":       "clear",
		"vm-flat.vmdk": "encrypted",
		"vm.vswp":      "encrypted",
		"vm.nvram":     "encrypted",
		"disk.qcow2":   "encrypted",
		"core.1234":    "encrypted",
		"unknown":      "encrypted",
		"sparse.vmdk":  "encrypted",
		"unattend.xml": "encrypted",
		"vm.vmx~":      "clear",
		"vm.vswp.tmp":  "encrypted",
	}
	for name := range want {
		r.write(name, "content of "+name)
	}
	check := func() {
		for name, form := range want {
			r.wantRead(name, "content of "+name)
			r.wantForm(name, form)
		}
	}
	check()
	r.remount()
	check()
}

// TestOwnDirectoryByAnotherName: where BACKING folds cases, the program's directory has other names
// too. Here a bind mount gives the directory one.
func TestOwnDirectoryByAnotherName(t *testing.T) {
	r := newRig(t, nil)
	const folded = ".VmCryptFS"
	if err := os.Mkdir(r.under(folded), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.path(folded)); err != nil {
		t.Errorf("somebody else's directory: %v", err)
	}
	if err := unix.Mount(r.under(".vmcryptfs"), r.under(folded), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.unmount() // the sweep for temporaries may be in there
		if err := unix.Unmount(r.under(folded), 0); err != nil {
			t.Error(err)
		}
	})
	r.remount()
	for _, name := range []string{folded, folded + "/datastore.toml"} {
		_, err := os.Stat(r.path(name))
		wantErrno(t, name, err, unix.ENOENT)
	}
	wantErrno(t, "remove", os.Remove(r.path(folded)), unix.ENOENT)
	wantErrno(t, "rename", os.Rename(r.path(folded), r.path("x")), unix.ENOENT)
}
