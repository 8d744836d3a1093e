package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// kind is a disk format as made by qemu-img.
type kind struct {
	name      string // of the file
	format    string
	subformat string
	data      string // the file with the guest's data
	bare      bool   // QEMU gets the data file, as raw
	trims     bool   // space trimmed by the guest returns to BACKING
}

var kinds = []kind{
	// QEMU's vmdk driver passes no trim on, but a flat extent is a raw disk too.
	{name: "flat.vmdk", format: "vmdk", subformat: "monolithicFlat", data: "flat-flat.vmdk"},
	{name: "bare.vmdk", format: "vmdk", subformat: "monolithicFlat", data: "bare-flat.vmdk", bare: true, trims: true},
	{name: "sparse.vmdk", format: "vmdk", subformat: "monolithicSparse", data: "sparse.vmdk"},
	{name: "disk.qcow2", format: "qcow2", data: "disk.qcow2", trims: true},
	{name: "disk.raw", format: "raw", data: "disk.raw", trims: true},
}

// mode is QEMU's way of I/O.
type mode struct{ cache, aio string }

func (m mode) String() string { return m.cache + "-" + m.aio }

var modes = []mode{{"none", "io_uring"}, {"none", "native"}, {"writeback", "threads"}}

// drive is a disk as given to a guest.
type drive struct {
	id, path, format string
	mode
}

// node is the disk's name in QEMU's graph.
func (d drive) node() string { return "node-" + d.id }

func (d drive) option() string {
	return fmt.Sprintf("if=none,id=%s,node-name=%s,file=%s,format=%s,cache=%s,aio=%s,discard=unmap,detect-zeroes=unmap",
		d.id, d.node(), d.path, d.format, d.cache, d.aio)
}

const diskSize = 64 << 20

// create makes an empty disk in dir.
func (k kind) create(t testing.TB, dir string, m mode) drive {
	t.Helper()
	d := drive{id: "disk-" + strings.ReplaceAll(filepath.Base(dir)+"-"+k.name, ".", "-"), path: filepath.Join(dir, k.name), format: k.format, mode: m}
	args := []string{"qemu-img", "create", "-q", "-f", k.format}
	if k.subformat != "" {
		args = append(args, "-o", "subformat="+k.subformat)
	}
	mounttest.Tool(t, append(args, d.path, fmt.Sprint(diskSize))...)
	switch {
	case k.bare:
		d.path, d.format = filepath.Join(dir, k.data), "raw"
	case k.data != k.name && m.aio == "io_uring":
		padDescriptor(t, d.path)
	}
	return d
}

// padDescriptor is the remedy of docs/operations.md for aio=io_uring.
func padDescriptor(t testing.TB, path string) {
	t.Helper()
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
}

// stored is how many bytes of storage a file takes.
func stored(t testing.TB, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// load is an fio command for the guest: random writes with checksums, then all read back,
// in each of the directories at once.
func load(dirs ...string) string {
	size := "4m"
	if tally.Slow() {
		size = "20m"
	}
	command := "fio --minimal --thread --rw=randwrite --bsrange=512-64k --direct=1 --ioengine=libaio --iodepth=8" +
		" --fsync=32 --fallocate=none --verify=crc32c --verify_fatal=1 --verify_state_save=0 --size=" + size
	for _, dir := range dirs {
		command += " --name=load --directory=" + dir
	}
	return command
}

// underWay starts a load in the guest, and returns when some of the load has arrived at a file of
// BACKING.
func (m *machine) underWay(command, path string) {
	m.t.Helper()
	before := stored(m.t, path)
	m.begin(command)
	mounttest.Eventually(m.t, "the load writes", patience, func() error {
		if now := stored(m.t, path); now < before+512<<10 {
			return fmt.Errorf("%s takes %d bytes, before %d", path, now, before)
		}
		return nil
	})
}
