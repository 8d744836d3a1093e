package durability

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/powerloss"
)

// newForgetful mounts a datastore whose BACKING is a forgetting disk.
func newForgetful(t *testing.T) (*mounttest.Datastore, *powerloss.Disk) {
	t.Helper()
	o := newOutage(t, powerloss.Options{})
	o.workers = nil
	if err := o.begin(); err != nil {
		t.Fatal(err)
	}
	return o.d, o.disk
}

// kindOf returns the sort of sync requested from BACKING between two counts: "full" or "data", by
// a call of its own or with the write, or "none".
func kindOf(before, after powerloss.Syncs) string {
	switch {
	case after.Fsync > before.Fsync || after.FsyncWrites > before.FsyncWrites:
		return "full"
	case after.Fdatasync > before.Fdatasync || after.DsyncWrites > before.DsyncWrites:
		return "data"
	default:
		return "none"
	}
}

// TestSyncKinds: each request for durability reaches BACKING as the same kind, and a call without
// such a request costs no sync.
func TestSyncKinds(t *testing.T) {
	t.Parallel()
	d, disk := newForgetful(t)
	for _, name := range []string{"a.img", "a.log"} {
		d.Write(name, make([]byte, 64<<10))
		for _, how := range []struct {
			what string
			open int
			rwf  int
			call func(fd int) error
			want string
		}{
			{"a write", 0, 0, nil, "none"},
			{"fsync", 0, 0, unix.Fsync, "full"},
			{"fdatasync", 0, 0, unix.Fdatasync, "data"},
			{"O_DSYNC", unix.O_DSYNC, 0, nil, "data"},
			{"O_SYNC", unix.O_SYNC, 0, nil, "full"},
			{"RWF_DSYNC", 0, unix.RWF_DSYNC, nil, "data"},
			{"RWF_SYNC", 0, unix.RWF_SYNC, nil, "full"},
		} {
			for _, direct := range []int{0, unix.O_DIRECT} {
				if got := syncOf(t, d, disk, name, how.open|direct, how.rwf, how.call); got != how.want {
					t.Errorf("%s of %s, O_DIRECT %t: BACKING was asked for %s, want %s", how.what, name, direct != 0, got, how.want)
				}
			}
		}
	}
}

// syncOf writes a block, calls call, and returns the sync seen by BACKING.
func syncOf(t *testing.T, d *mounttest.Datastore, disk *powerloss.Disk, name string, flags, rwf int, call func(fd int) error) string {
	t.Helper()
	fd, err := mounttest.Open(d.Path(name), unix.O_RDWR|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	before := disk.Syncs(name)
	err = mounttest.Uninterrupted(func() error {
		_, err := unix.Pwritev2(fd, [][]byte{aligned(4096)}, 4096, rwf)
		return err
	})
	if err == nil && call != nil {
		err = mounttest.Uninterrupted(func() error { return call(fd) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return kindOf(before, disk.Syncs(name))
}

// TestDirectorySync: fsync of a directory is one of BACKING's directory.
func TestDirectorySync(t *testing.T) {
	t.Parallel()
	d, disk := newForgetful(t)
	if err := os.Mkdir(d.Path("vm"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", "vm"} {
		before := disk.Syncs(dir)
		if err := syncDirOf(filepath.Join(d.Path(dir), "any")); err != nil {
			t.Fatal(err)
		}
		if got := disk.Syncs(dir).Fsync - before.Fsync; got != 1 {
			t.Errorf("fsync of directory %q: %d of BACKING's, want 1", dir, got)
		}
	}
}

// TestSyncsOfManyInFlight: asynchronous writes, AIO and io_uring, direct and buffered, request no
// fewer syncs than those of one thread.
func TestSyncsOfManyInFlight(t *testing.T) {
	t.Parallel()
	d, disk := newForgetful(t)
	for _, engine := range []string{"libaio", "io_uring"} {
		for _, direct := range []string{"--direct=1", "--direct=0"} {
			name := engine + direct + ".img"
			d.Write(name, make([]byte, inFlight*4096)) // fio would sync a file laid out by fio itself
			before := disk.Syncs(name)
			fioSyncs(t, d.Path(name), "--ioengine="+engine, direct, "--sync=dsync")
			after := disk.Syncs(name)
			if got := after.DsyncWrites + after.Fdatasync - before.DsyncWrites - before.Fdatasync; got < inFlight {
				t.Errorf("%d writes of %s %s with O_DSYNC: BACKING was asked %d times", inFlight, engine, direct, got)
			}
			asked := fioSyncs(t, d.Path(name), "--ioengine="+engine, direct, "--fdatasync=1")
			if got := disk.Syncs(name).Fdatasync - after.Fdatasync; got < asked || asked == 0 {
				t.Errorf("%d times fdatasync of %s %s: BACKING was asked %d times", asked, engine, direct, got)
			}
		}
	}
}

const inFlight = 64 // blocks of 4 KiB

// fioSyncs writes and returns fio's count of syncs.
func fioSyncs(t *testing.T, path string, args ...string) int {
	t.Helper()
	out := mounttest.Tool(t, append([]string{"fio", "--name=sync", "--filename=" + path, "--rw=randwrite", "--bs=4k", "--iodepth=16",
		fmt.Sprintf("--size=%d", inFlight*4096), "--thread", "--output-format=json"}, args...)...)
	var report struct {
		Jobs []struct {
			Sync struct {
				Latency struct{ N int } `json:"lat_ns"`
			} `json:"sync"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Jobs) != 1 {
		t.Fatalf("fio: %v\n%s", err, out)
	}
	return report.Jobs[0].Sync.Latency.N
}
