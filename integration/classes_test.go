package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

const descriptor = `# Disk DescriptorFile
version=1
encoding="windows-1252"
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"

# Extent description
RW 16384 FLAT "disk-flat.vmdk" 0

# The Disk Data Base
ddb.adapterType = "lsilogic"
`

// TestClasses writes a VM's worth of files, each with a marker, and looks for the marker
// in BACKING's raw bytes.
func TestClasses(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	form := map[string]string{
		"vmware.log": "clear", "vmware-3.log": "clear", "vm.vmx": "clear", "vm.vmxf": "clear",
		"vm.vmsd": "clear", "vm.vmx.lck": "clear", "dom.xml": "clear", "vmware.log.1.gz": "clear",
		"VM.VMX": "clear",

		"vm-flat.vmdk": "encrypted", "vm-000001-delta.vmdk": "encrypted", "vm-s001.vmdk": "encrypted",
		"vm.vmdk": "encrypted", // the content is no descriptor
		"vm.vswp": "encrypted", "vm.vmem": "encrypted", "vm.nvram": "encrypted", "vm.vmss": "encrypted",
		"core": "encrypted", "core.4711": "encrypted", "vmmcores-zdump.1": "encrypted",
		"disk.qcow2": "encrypted", "disk.raw": "encrypted", "notes": "encrypted", "unattend.xml": "encrypted",
		"vmware.log.exe": "encrypted",
	}
	marker := func(name string) []byte { return []byte("MARKER:" + name + ":this text must not be found") }
	for name := range form {
		d.Write(name, bytes.Repeat(marker(name), 50))
	}
	d.WantForms(form)
	raw := readTree(t, d.Backing)
	for name, form := range form {
		found := bytes.Contains(raw, marker(name))
		if found != (form == "clear") {
			t.Errorf("marker of %s (%s) found in BACKING: %v", name, form, found)
		}
	}
	d.Remount()
	for name := range form {
		wantSame(t, name, d.Read(name), bytes.Repeat(marker(name), 50))
	}
	if c := d.verify(); c.encrypted+c.clear != len(form) {
		t.Errorf("%d files verified, want %d", c.encrypted+c.clear, len(form))
	}
}

// readTree is all files below dir in one piece.
func readTree(t *testing.T, dir string) []byte {
	t.Helper()
	var all bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		all.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.Bytes()
}

// Equal plaintext, at two places of one file and in two files, shares no cipher block.
func TestEqualPlaintextDiffers(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	plain := bytes.Repeat([]byte("sixteen bytes..."), 8192)
	seen := map[[16]byte]string{}
	for _, name := range []string{"a-flat.vmdk", "b-flat.vmdk", "c.vmem"} {
		d.Write(name, plain)
		raw, err := os.ReadFile(d.Below(name))
		if err != nil {
			t.Fatal(err)
		}
		for off := dataStart; off < len(raw); off += 16 {
			block, here := [16]byte(raw[off:]), fmt.Sprintf("%s at %d", name, off)
			if other, twice := seen[block]; twice {
				t.Fatalf("%s is the same cipher block as %s", here, other)
			}
			seen[block] = here
		}
	}
	t.Logf("%d cipher blocks of %d equal plaintext blocks, all different", len(seen), 3*len(plain)/16)
}

// Late binding: a descriptor turns clear once complete, and encrypted again before a byte foreign
// to descriptors lands in BACKING.
func TestLateBinding(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	f, err := os.Create(d.Path("vm.vmdk"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	ino := inode(t, d.Path("vm.vmdk"))
	for _, part := range []string{descriptor[:50], descriptor[50:]} {
		if _, err := f.WriteString(part); err != nil {
			t.Fatal(err)
		}
	}
	if got := d.Form("vm.vmdk"); got != "encrypted" {
		t.Errorf("%s before the first fsync, want encrypted", got)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := d.Form("vm.vmdk"); got != "clear" {
		t.Errorf("a whole descriptor is %s after fsync, want clear", got)
	}
	secret := "\x00\x01binary guest data"
	if _, err := f.WriteAt([]byte(secret), 600); err != nil {
		t.Fatal(err)
	}
	if got := d.Form("vm.vmdk"); got != "encrypted" {
		t.Errorf("%s after guest data was written, want encrypted", got)
	}
	if bytes.Contains(readTree(t, d.Backing), []byte("binary guest data")) {
		t.Error("guest data lies in BACKING in clear")
	}
	if got := inode(t, d.Path("vm.vmdk")); got != ino {
		t.Errorf("inode number %d after two conversions, want %d", got, ino)
	}
	if err := f.Truncate(int64(len(descriptor))); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	d.WantForms(map[string]string{"vm.vmdk": "clear"})
	wantSame(t, "vm.vmdk", d.Read("vm.vmdk"), []byte(descriptor))
	d.verify()
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// A clear file can be made to look encrypted in no way.
func TestMagicGuard(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	big := bytes.Repeat([]byte("x"), 2<<20)
	for name, attempt := range map[string]func(f *os.File) error{
		"at once": func(f *os.File) error { return writeAt(f, magic, 0) },
		"in two pieces": func(f *os.File) error {
			if err := writeAt(f, magic[4:], 4); err != nil {
				return fmt.Errorf("first piece: %v", err)
			}
			return writeAt(f, magic[:4], 0)
		},
		"in two pieces backwards": func(f *os.File) error {
			if err := writeAt(f, magic[:4], 0); err != nil {
				return fmt.Errorf("first piece: %v", err)
			}
			return writeAt(f, magic[4:], 4)
		},
		"by copy_file_range": func(f *os.File) error {
			src, dst := int64(1<<20), int64(0)
			if err := writeAt(f, magic+"more", src); err != nil {
				return fmt.Errorf("copy's source: %v", err)
			}
			_, err := unix.CopyFileRange(int(f.Fd()), &src, int(f.Fd()), &dst, 64, 0)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := strings.ReplaceAll(name, " ", "-") + ".log"
			d.Write(log, big)
			f, err := os.OpenFile(d.Path(log), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			if err := attempt(f); !errors.Is(err, unix.EPERM) {
				t.Errorf("error %v, want EPERM", err)
			}
			d.WantForms(map[string]string{log: "clear"})
		})
	}
}

func writeAt(f *os.File, s string, off int64) error {
	_, err := f.WriteAt([]byte(s), off)
	return err
}

// A clear file, open and still empty, is renamed to a disk's name: from then on, writes through
// the old handle are a disk's.
func TestRenameWhileOpen(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	for name, flags := range map[string]uint{"rename": 0, "noreplace": unix.RENAME_NOREPLACE, "exchange": unix.RENAME_EXCHANGE} {
		from, to := name+".log", name+".vmem"
		f, err := os.Create(d.Path(from))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if flags == unix.RENAME_EXCHANGE {
			if err := os.Mkdir(d.Path(to), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		err = mounttest.Uninterrupted(func() error {
			return unix.Renameat2(unix.AT_FDCWD, d.Path(from), unix.AT_FDCWD, d.Path(to), flags)
		})
		if errors.Is(err, unix.EXDEV) {
			continue // another safe answer
		}
		if err != nil {
			t.Fatal(err)
		}
		secret := []byte("memory of the guest, " + name)
		if _, err := f.Write(secret); err != nil {
			t.Errorf("%s: write: %v", name, err)
			continue
		}
		if bytes.Contains(readTree(t, d.Backing), secret) {
			t.Errorf("%s: what was written to %s lies in BACKING in clear", name, to)
		}
		wantSame(t, to, d.Read(to), secret)
	}
}

// The program's own names are not to be seen and not to be made.
func TestReservedNames(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	entries, err := os.ReadDir(d.Mnt)
	if err != nil || len(entries) != 0 {
		t.Errorf("a new datastore lists %v (%v), want nothing", entries, err)
	}
	if _, err := os.Lstat(d.Path(".vmcryptfs")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("lstat .vmcryptfs: %v, want ENOENT", err)
	}
	d.Write("plain.vmx", []byte("a"))
	for what, err := range map[string]error{
		"create": os.WriteFile(d.Path(".vmcryptfs-x"), nil, 0o600),
		"mkdir":  os.Mkdir(d.Path(".vmcryptfs"), 0o700),
		"rename": os.Rename(d.Path("plain.vmx"), d.Path(".vmcryptfs-y")),
		"link":   os.Link(d.Path("plain.vmx"), d.Path(".vmcryptfs-z")),
		"symlink": os.Symlink("plain.vmx",
			d.Path(".vmcryptfs-s")),
	} {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("%s of a reserved name: %v, want EPERM", what, err)
		}
	}
}
