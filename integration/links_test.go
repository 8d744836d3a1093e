package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// TestDotlockfile takes and gives back a lock: a temporary with an unknown name is linked to a
// lock's name.
func TestDotlockfile(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	lock := d.Path("vm.lck")
	for range 2 {
		mounttest.Tool(t, "dotlockfile", "-r", "0", "-p", lock)
		mounttest.Tool(t, "dotlockfile", "-c", "-p", lock)
		if got := d.Read("vm.lck"); len(got) == 0 {
			t.Error("the lock names no process")
		}
		mounttest.Tool(t, "dotlockfile", "-u", lock)
		d.Absent("vm.lck")
	}
	if left, err := os.ReadDir(d.Mnt); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestCopiedLinks copies files with names of several classes by tools that keep links: every name
// arrives, and is the same file.
func TestCopiedLinks(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	source := filepath.Join(t.TempDir(), "vm")
	text := bytes.Repeat([]byte("a line\n"), 20_000)
	groups := [][]string{
		{"vm.log", "vm.log.save"},
		{"a.save", "b.log", "c.log", "d.vmx"},
		{"empty.log", "empty.save", "empty.xml"},
		{"vm.vmdk", "vm.vmdk.copy"},
	}
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, names := range groups {
		content := text
		switch names[0] {
		case "empty.log":
			content = nil
		case "vm.vmdk":
			content = []byte(descriptor)
		}
		if err := os.WriteFile(filepath.Join(source, names[0]), content, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, name := range names[1:] {
			if err := os.Link(filepath.Join(source, names[0]), filepath.Join(source, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for how, copy := range map[string]func(to string){
		"rsync":         func(to string) { mounttest.Tool(t, "rsync", "-aH", source+"/", to+"/") },
		"rsync-inplace": func(to string) { mounttest.Tool(t, "rsync", "-aH", "--inplace", source+"/", to+"/") },
		"cp":            func(to string) { mounttest.Tool(t, "cp", "-a", source, to) },
		"tar": func(to string) {
			packed := filepath.Join(t.TempDir(), "tar")
			mounttest.Tool(t, "tar", "-cf", packed, "-C", filepath.Dir(source), "vm")
			mounttest.Tool(t, "tar", "-xf", packed, "-C", d.Mnt)
			if err := os.Rename(d.Path("vm"), to); err != nil {
				t.Fatal(err)
			}
		},
	} {
		copy(d.Path(how))
		d.wantTree(source, how, nil)
		for _, names := range groups {
			d.wantOneFile(how, names)
		}
	}
	d.Remount()
	for _, how := range []string{"rsync", "rsync-inplace", "cp", "tar"} {
		d.wantTree(source, how, nil)
	}
	d.verify()
}

// wantOneFile checks that names in dir are links of one file, and that only an empty file is in
// clear.
func (d *datastore) wantOneFile(dir string, names []string) {
	d.T.Helper()
	var first unix.Stat_t
	for i, name := range names {
		var st unix.Stat_t
		at := filepath.Join(dir, name)
		if err := unix.Stat(d.Below(at), &st); err != nil {
			d.T.Errorf("%s: %v", at, err)
			continue
		}
		if i == 0 {
			first = st
		}
		if st.Ino != first.Ino || st.Nlink != uint64(len(names)) {
			d.T.Errorf("%s has %d links, want %d to one file", at, st.Nlink, len(names))
		}
		if form := d.Form(at); form == "clear" {
			d.T.Errorf("%s is clear in BACKING, and one of its names is encrypted", at)
		}
	}
}
