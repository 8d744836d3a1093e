package integration

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// peakResident returns the peak resident memory of the daemon, in MiB.
func (d *datastore) peakResident() int {
	d.T.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID))
	if err != nil {
		d.T.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				d.T.Fatal(err)
			}
			return kib / 1024
		}
	}
	d.T.Fatalf("no VmHWM in:\n%s", b)
	return 0
}

// One busy disk of 10 GiB keeps the daemon below 64 MiB.
func TestMemoryBusyDisk(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	disk := d.Path("big-flat.vmdk")
	mounttest.Tool(t, "truncate", "-s", "10G", disk)
	loads := []string{"--rw=randrw --bs=4k --iodepth=16 --direct=1", "--rw=write --bs=1m --iodepth=8 --direct=1", "--rw=randrw --bs=64k --iodepth=16"}
	for _, load := range loads {
		args := append([]string{"fio", "--name=big", "--filename=" + disk, "--size=10g", "--io_size=96m", "--ioengine=libaio", "--fallocate=none", "--thread", "--minimal"}, strings.Fields(load)...)
		mounttest.Tool(t, args...)
	}
	peak := d.peakResident()
	t.Logf("10 GiB disk under %d loads: at most %d MiB resident", len(loads), peak)
	if peak >= 64 {
		t.Errorf("%d MiB resident with one busy 10 GiB disk, want under 64", peak)
	}
}

// With 1,000 open files, the daemon stays below 200 MiB.
func TestMemoryOpenFiles(t *testing.T) {
	t.Parallel()
	const files = 1000
	d := newDatastore(t)
	for i := range files {
		f, err := os.Create(d.Path(fmt.Sprintf("disk-%d-flat.vmdk", i)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if _, err := unix.Pwrite(int(f.Fd()), plainText, int64(i)*unitSize); err != nil {
			t.Fatal(err)
		}
	}
	if open := d.Status().IO.OpenFiles; open != files {
		t.Errorf("status counts %d open files, want %d", open, files)
	}
	peak := d.peakResident()
	t.Logf("%d open files: at most %d MiB resident", files, peak)
	if peak >= 200 {
		t.Errorf("%d MiB resident with %d open files, want under 200", peak, files)
	}
}
