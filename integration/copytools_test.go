package integration

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// machine makes a VM's home outside the mount: files of every class, sparse ones, links, extended
// attributes, odd times. machine returns the directory and the form of each file once in a
// datastore.
func machine(t *testing.T) (dir string, form map[string]string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "vm")
	files := map[string][]byte{
		"vm.vmx":       []byte("displayName = \"vm\"\nmemSize = \"512\"\n"),
		"vm.vmdk":      []byte(descriptor),
		"vm-flat.vmdk": bytes.Repeat([]byte("guest data "), 150_000),
		"vm.nvram":     random(8684),
		"vm.vmsn":      random(70_001),
		"vmware.log":   bytes.Repeat([]byte("a line of the log\n"), 20_000),
		"core.17":      random(513),
		"notes":        []byte("no known name"),
		"empty.vmsd":   nil,
	}
	form = map[string]string{
		"vm.vmx": "clear", "vm.vmdk": "clear", "vmware.log": "clear", "empty.vmsd": "empty",
		"vm-flat.vmdk": "encrypted", "vm.nvram": "encrypted", "vm.vmsn": "encrypted",
		"core.17": "encrypted", "notes": "encrypted", "sub/hole.img": "encrypted", "vm-link.nvram": "encrypted",
	}
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	hole, err := os.Create(filepath.Join(dir, "sub/hole.img"))
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 5 << 20, 9<<20 + 77} {
		if _, err := hole.WriteAt(random(5000), off); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		hole.Truncate(12 << 20), hole.Close(),
		os.Link(filepath.Join(dir, "vm.nvram"), filepath.Join(dir, "vm-link.nvram")),
		os.Symlink("vm.vmx", filepath.Join(dir, "current.vmx")),
		os.Chown(filepath.Join(dir, "vm.vmx"), 1234, 5678),
		unix.Setxattr(filepath.Join(dir, "vm-flat.vmdk"), "user.origin", []byte("esx7"), 0),
		os.Chtimes(filepath.Join(dir, "vm.vmsn"), time.Unix(1e9, 0), time.Unix(1234567890, 123456789)),
		os.Chmod(filepath.Join(dir, "vm.vmsn"), 0o400),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir, form
}

// wantTree compares a tree on the mount with its source: content, owners, modes, times, links,
// extended attributes (as seen by rsync), and the forms in BACKING.
func (d *datastore) wantTree(source, name string, form map[string]string) {
	d.T.Helper()
	if out := mounttest.Tool(d.T, "rsync", "-aHAX", "--checksum", "--dry-run", "--itemize-changes", "--delete", source+"/", d.Path(name)+"/"); out != "" {
		d.T.Errorf("rsync would change in %s:\n%s", name, out)
	}
	for file, want := range form {
		if got := d.Form(filepath.Join(name, file)); got != want {
			d.T.Errorf("%s/%s is %s in BACKING, want %s", name, file, got, want)
		}
	}
}

// blocks is st_blocks: a file's space on disk, in 512 bytes.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

// TestCopyTools moves a VM's home in and out with the tools of administrators and backup.
func TestCopyTools(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	source, form := machine(t)

	mounttest.Tool(t, "rsync", "-aHAX", source+"/", d.Path("rsync")+"/")
	d.wantTree(source, "rsync", form)

	mounttest.Tool(t, "rsync", "-aHAX", "--inplace", source+"/", d.Path("inplace")+"/")
	d.wantTree(source, "inplace", form)

	mounttest.Tool(t, "rsync", "-aHAXS", source+"/", d.Path("sparse")+"/")
	d.wantTree(source, "sparse", form)

	mounttest.Tool(t, "cp", "-a", "--sparse=always", source, d.Path("cp-always"))
	d.wantTree(source, "cp-always", form)
	mounttest.Tool(t, "cp", "-a", "--sparse=auto", source, d.Path("cp-auto"))
	d.wantTree(source, "cp-auto", form)
	for _, dir := range []string{"sparse", "cp-always", "cp-auto"} {
		if got := blocks(t, d.Path(dir+"/sub/hole.img")); got > 1024 {
			t.Errorf("%s/sub/hole.img takes %d KiB, want it sparse", dir, got/2)
		}
	}

	archive := filepath.Join(t.TempDir(), "vm.tar")
	mounttest.Tool(t, "tar", "-C", d.Path("sparse"), "-S", "--xattrs", "-cf", archive, ".")
	if st, err := os.Stat(archive); err != nil || st.Size() > 4<<20 {
		t.Errorf("tar -S of a sparse file: %v bytes (%v), want the holes left out", st.Size(), err)
	}
	if err := os.Mkdir(d.Path("tar"), 0o755); err != nil {
		t.Fatal(err)
	}
	mounttest.Tool(t, "tar", "-C", d.Path("tar"), "-S", "--xattrs", "--same-owner", "-xpf", archive)
	mounttest.Tool(t, "touch", "-r", source, d.Path("tar")) // tar sets "." last
	d.wantTree(d.Path("sparse"), "tar", form)

	// A changed source, brought over in place and through temporary names.
	changed := filepath.Join(source, "vm-flat.vmdk")
	mounttest.Tool(t, "dd", "if=/dev/urandom", "of="+changed, "bs=1000", "seek=700", "count=3", "conv=notrunc", "status=none")
	mounttest.Tool(t, "touch", "-d", "@1", changed) // rsync sees no change within a second
	if err := os.WriteFile(filepath.Join(source, "vm.vmdk"), []byte(descriptor+"ddb.uuid = \"1\"\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	for dir, how := range map[string]string{"rsync": "--no-inplace", "inplace": "--inplace"} {
		mounttest.Tool(t, "rsync", "-aHAX", "--no-whole-file", how, source+"/", d.Path(dir)+"/")
		d.wantTree(source, dir, form)
	}

	// And out again, into a plain directory.
	out := t.TempDir()
	mounttest.Tool(t, "rsync", "-aHAXS", d.Path("rsync")+"/", out+"/")
	if diff := mounttest.Tool(t, "rsync", "-aHAX", "--checksum", "--dry-run", "--itemize-changes", source+"/", out+"/"); diff != "" {
		t.Errorf("copied out:\n%s", diff)
	}
	d.Remount()
	d.wantTree(source, "rsync", form)
	d.verify()
}

// TestSmallTools changes single files as shells, editors and administrators do.
func TestSmallTools(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	d.Write("disk.img", bytes.Repeat([]byte("0123456789abcdef"), 1<<14))
	plain := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(plain, d.Read("disk.img"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"dd if=/dev/zero of=FILE bs=700 seek=3 count=2 conv=notrunc status=none",
		"dd if=/bin/true of=FILE bs=513 seek=40 count=5 conv=notrunc,fsync status=none",
		"dd if=/bin/true of=FILE bs=4096 seek=9 count=2 conv=notrunc oflag=direct status=none",
		"fallocate -p -o 8192 -l 16384 FILE",
		"fallocate -p -o 1000 -l 77 FILE",
		"fallocate -z -o 40000 -l 5000 FILE",
		"fallocate -l 300001 FILE",
		"truncate -s -1 FILE",
		"truncate -s %4096 FILE",
		"truncate -s 100007 FILE",
		"dd if=/bin/true of=FILE bs=1 count=3 oflag=append conv=notrunc status=none",
		"fallocate -d FILE",
	} {
		for _, file := range []string{d.Path("disk.img"), plain} {
			mounttest.Tool(t, strings.Fields(strings.ReplaceAll(args, "FILE", file))...)
		}
		want, err := os.ReadFile(plain)
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, args, d.Read("disk.img"), want)
	}
	d.Remount()
	want, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "after a remount", d.Read("disk.img"), want)
	d.verify()
}

// TestEditors: saving through a temporary name ends with the form of the final name.
func TestEditors(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	d.Write("vm.vmx", []byte("memSize = \"512\"\n"))
	d.Write("vm.vmdk", []byte(descriptor))

	mounttest.Tool(t, "sed", "-i", "s/512/1024/", d.Path("vm.vmx")) // sed's temporary is "sedXXXXXX"
	wantSame(t, "sed -i", d.Read("vm.vmx"), []byte("memSize = \"1024\"\n"))
	mounttest.Tool(t, "sed", "-i", "s/fffffffe/12345678/", d.Path("vm.vmdk"))
	d.WantForms(map[string]string{"vm.vmx": "clear", "vm.vmdk": "clear"})

	// vi: the old file becomes name~, the new one is written, synced, and name~ removed.
	for _, name := range []string{"vm.vmx", "vm.vmdk"} {
		old := d.Read(name)
		if err := os.Rename(d.Path(name), d.Path(name+"~")); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(d.Path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		_, werr := f.Write(append(old, "# edited\n"...))
		if err := errors.Join(werr, f.Sync(), f.Close(), os.Remove(d.Path(name+"~"))); err != nil {
			t.Fatal(err)
		}
		wantSame(t, name, d.Read(name), append(old, "# edited\n"...))
	}
	// Most programs: write name.tmp, sync, rename over.
	for _, name := range []string{"vm.vmx", "vm.vmdk", "vm.nvram"} {
		content := []byte(descriptor + "# third version\n")
		d.Write(name+".tmp", content)
		if err := os.Rename(d.Path(name+".tmp"), d.Path(name)); err != nil {
			t.Fatal(err)
		}
		wantSame(t, name, d.Read(name), content)
	}
	d.WantForms(map[string]string{"vm.vmx": "clear", "vm.vmdk": "clear", "vm.nvram": "encrypted"})
	d.verify()
}

// TestMoveAcrossClasses is design §4, renames, through mv and rename(2).
func TestMoveAcrossClasses(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	small, large := bytes.Repeat([]byte("s"), 100_000), bytes.Repeat([]byte("L"), 3<<20)
	for _, tc := range []struct {
		from, to string
		content  []byte
		errno    error  // of rename(2)
		form     string // after mv: mv copies on EXDEV
	}{
		{"a.dat", "a.log", small, nil, "clear"},
		{"b.log", "b.dat", small, nil, "encrypted"},
		{"c.log", "c-flat.vmdk", small, nil, "encrypted"},
		{"d.dat", "d.log", large, unix.EXDEV, "clear"},
		{"e.log", "e.dat", large, unix.EXDEV, "encrypted"},
		{"f-flat.vmdk", "f.log", small, nil, "encrypted"}, // a disk never turns clear
		{"g.vmem", "g.log", large, nil, "encrypted"},
		{"h.vmdk", "h.vmx", []byte(descriptor), nil, "clear"},
		{"i.vmx", "i.vmdk", []byte(descriptor), nil, "clear"},
		{"j.vmx", "j.vmdk", small, nil, "encrypted"},
		{"k.img", "k.qcow2", large, nil, "encrypted"},
		{"l.log", "l.xml", large, nil, "clear"},
	} {
		for _, how := range []string{"rename", "mv"} {
			from, to := how+"-"+tc.from, how+"-"+tc.to
			d.Write(from, tc.content)
			if how == "mv" {
				mounttest.Tool(t, "mv", d.Path(from), d.Path(to))
			} else if err := os.Rename(d.Path(from), d.Path(to)); !errors.Is(err, tc.errno) {
				t.Errorf("rename %s to %s: %v, want %v", from, to, err, tc.errno)
			} else if err != nil {
				wantSame(t, "after EXDEV "+from, d.Read(from), tc.content)
				d.Absent(to)
				continue
			}
			wantSame(t, to, d.Read(to), tc.content)
			d.WantForms(map[string]string{to: tc.form})
			d.Absent(from)
		}
	}
	// A link takes the stricter class; exchanges across classes are refused, whatever the size.
	d.Write("x.log", small)
	d.Write("x.img", small)
	if err := os.Link(d.Path("x.img"), d.Path("y.log")); err != nil {
		t.Errorf("link x.img y.log: %v", err)
	}
	d.WantForms(map[string]string{"x.img": "encrypted", "y.log": "encrypted"})
	err := mounttest.Uninterrupted(func() error {
		return unix.Renameat2(unix.AT_FDCWD, d.Path("x.log"), unix.AT_FDCWD, d.Path("x.img"), unix.RENAME_EXCHANGE)
	})
	if !errors.Is(err, unix.EXDEV) {
		t.Errorf("exchange x.log and x.img: %v, want EXDEV", err)
	}
	d.Remount()
	d.verify()
}
