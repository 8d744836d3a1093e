package durability

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/powerloss"
	"vmcryptfs/integration/tally"
)

// refusals are the errors of BACKING that reach the caller unchanged.
var refusals = []unix.Errno{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS}

// deed is a call, the indispensable request to BACKING, and the log's words when the request is
// refused.
type deed struct {
	what string
	op   powerloss.Op
	says string // the operation and the file
	do   func(d *mounttest.Datastore) error
}

func onFile(name string, flags int, do func(f *os.File) error) func(*mounttest.Datastore) error {
	return func(d *mounttest.Datastore) error {
		f, err := os.OpenFile(d.Path(name), os.O_RDWR|flags, 0)
		if err != nil {
			return err
		}
		err = do(f)
		return errors.Join(err, f.Close())
	}
}

func deedsOn(name string) []deed {
	block := bytes.Repeat([]byte{7}, 4096)
	write := func(f *os.File) error {
		p := aligned(len(block))
		copy(p, block)
		_, err := f.WriteAt(p, 4096)
		return err
	}
	return []deed{
		{"write " + name, powerloss.Write, says("write", name), onFile(name, 0, write)},
		{"write of a part of a unit", powerloss.Write, says("write", name), onFile(name, 0, func(f *os.File) error { _, err := f.WriteAt(block[:100], 7); return err })},
		{"append", powerloss.Write, says("write", name), onFile(name, os.O_APPEND, func(f *os.File) error { _, err := f.Write(block); return err })},
		{"O_DIRECT write", powerloss.Write, says("write", name), onFile(name, unix.O_DIRECT, write)},
		{"O_DSYNC write", powerloss.Write, says("write", name), onFile(name, unix.O_DSYNC, write)},
		{"truncate", powerloss.Truncate, says("setattr", name), onFile(name, 0, func(f *os.File) error { return f.Truncate(8192) })},
		{"grow", powerloss.Truncate, says("setattr", name), onFile(name, 0, func(f *os.File) error { return f.Truncate(64 << 10) })},
		{"punch", powerloss.Fallocate, says("fallocate", name), onFile(name, 0, func(f *os.File) error {
			return fallocate(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
		})},
		{"allocate", powerloss.Fallocate, says("fallocate", name), onFile(name, 0, func(f *os.File) error { return fallocate(f, 0, 0, 64<<10) })},
		{"fsync", powerloss.Fsync, says("fsync", name), onFile(name, 0, (*os.File).Sync)},
		{"fdatasync", powerloss.Fsync, says("fsync", name), onFile(name, 0, func(f *os.File) error { return syncFile(f, true) })},
		{"O_DIRECT read", powerloss.Read, says("open", name), onFile(name, unix.O_DIRECT, func(f *os.File) error { _, err := f.ReadAt(aligned(4096), 0); return err })},
	}
}

// deedsOnNames are calls on names; calls that convert need several requests, each of which may be
// refused. Each call has a name of its own, for the log has one line per name and operation.
func deedsOnNames() []deed {
	create := func(name string) func(d *mounttest.Datastore) error {
		return func(d *mounttest.Datastore) error { return createNew(d.Path(name)) }
	}
	rename := func(from, to string) func(d *mounttest.Datastore) error {
		return func(d *mounttest.Datastore) error { return os.Rename(d.Path(from), d.Path(to)) }
	}
	return []deed{
		{"create encrypted", powerloss.Create, says("create", "new.img"), create("new.img")},
		{"create encrypted, header refused", powerloss.Write, says("create", "new2.img"), create("new2.img")},
		{"create encrypted, sync refused", powerloss.Fsync, says("create", "new3.img"), create("new3.img")},
		{"create clear", powerloss.Create, says("create", "new.log"), create("new.log")},
		{"mkdir", powerloss.Create, says("mkdir", "new"), func(d *mounttest.Datastore) error { return os.Mkdir(d.Path("new"), 0o755) }},
		{"rename", powerloss.Rename, says("rename", "a.img"), rename("a.img", "b.img")},
		{"rename to encrypted, copy refused", powerloss.Write, says("rename", "vm.vmx"), rename("vm.vmx", "vm.bin")},
		{"rename to encrypted, sync refused", powerloss.Fsync, says("rename", "vm2.vmx"), rename("vm2.vmx", "vm.bin")},
		{"rename to encrypted, temporary refused", powerloss.Create, says("rename", "vm3.vmx"), rename("vm3.vmx", "vm.bin")},
		{"rename to clear", powerloss.Rename, says("rename", "vm.dat"), rename("vm.dat", "vm.xml")},
		{"unlink", powerloss.Unlink, says("unlink", "a.img"), func(d *mounttest.Datastore) error { return os.Remove(d.Path("a.img")) }},
		{"fsync of a directory", powerloss.FsyncDir, says("fsyncdir", "."), func(d *mounttest.Datastore) error { return syncDirOf(d.Path("any")) }},
	}
}

// says is how a line of the log begins, up to the errno.
func says(operation, file string) string {
	return fmt.Sprintf(`msg="%s: error of BACKING" file=%s errno=`, operation, file)
}

func createNew(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// TestRefusals: the caller gets BACKING's errno for a refused request, old content is there still
// and nothing else, and afterwards the same call works. The log has one line.
func TestRefusals(t *testing.T) {
	t.Parallel()
	d, disk := newForgetful(t)
	before := map[string][]byte{
		"a.img": bytes.Repeat([]byte("disk "), 3000), "a.log": bytes.Repeat([]byte("log "), 3000),
		"vm.vmx": []byte("memsize = 1"), "vm2.vmx": []byte("memsize = 2"), "vm3.vmx": []byte("memsize = 3"), "vm.dat": []byte("data"),
	}
	faults := 0
	for turn, errno := range refusals {
		for i, deed := range append(append(deedsOn("a.img"), deedsOn("a.log")...), deedsOnNames()...) {
			if !tally.Slow() && i%len(refusals) != turn {
				continue // each once, each errno on each sort
			}
			clearOut(t, d)
			for name, content := range before {
				if err := writeDurably(d.Path(name), content); err != nil {
					t.Fatal(err)
				}
			}
			faults++
			refuse(t, disk, deed, errno, d)
			wantFiles(t, d, deed.what, before)
			if err := deed.do(d); err != nil {
				t.Errorf("%s, once BACKING takes it: %v", deed.what, err)
			}
		}
	}
	if n := d.Status().IO.BackingErrors; n < int64(faults) {
		t.Errorf("status counts %d errors of BACKING, there were %d", n, faults)
	}
	tally.Add(t, "faults", faults)
	t.Logf("%d faults", faults)
}

// refuse does the deed while BACKING refuses, until the refusal is in the log, and twice more:
// the log keeps one line. (Of many failures at once some are logged only the next time.)
func refuse(t *testing.T, disk *powerloss.Disk, deed deed, errno unix.Errno, d *mounttest.Datastore) {
	t.Helper()
	awaitClosed(t, d, 0) // an open file has its header read already
	disk.SetFault(func(op powerloss.Op, _ string) unix.Errno {
		if op == deed.op {
			return errno
		}
		return 0
	})
	defer disk.SetFault(nil)
	before := len(d.ReadLog())
	logged := func() string { return d.ReadLog()[before:] }
	try := func() {
		if err := deed.do(d); !errors.Is(err, errno) {
			t.Fatalf("%s, and BACKING says %q: %v", deed.what, errno, err)
		}
	}
	want := deed.says + unix.ErrnoName(errno) + " "
	mounttest.Eventually(t, deed.what+" in the log", mounttest.Patience, func() error {
		if try(); !strings.Contains(logged(), want) {
			return fmt.Errorf("no line with %s in %q", want, logged())
		}
		return nil
	})
	try()
	try()
	if log := logged(); strings.Count(log, "error of BACKING") != 1 {
		t.Errorf("%s, and BACKING says %q: not one line in the log:\n%s", deed.what, errno, log)
	}
}

func clearOut(t *testing.T, d *mounttest.Datastore) {
	t.Helper()
	entries, err := os.ReadDir(d.Mnt)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(d.Path(e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// wantFiles checks the mount's top, and that BACKING keeps no temporary.
func wantFiles(t *testing.T, d *mounttest.Datastore, what string, want map[string][]byte) {
	t.Helper()
	entries, err := os.ReadDir(d.Mnt)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want) {
		t.Errorf("%s refused: %v, want %d files", what, entries, len(want))
	}
	for name, content := range want {
		if got, err := os.ReadFile(d.Path(name)); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s refused: %s: %d bytes, %v, want its %d of before", what, name, len(got), err, len(content))
		}
	}
	if left, err := filepath.Glob(d.Below(".vmcryptfs-*")); err != nil || len(left) > 0 {
		t.Errorf("%s refused: BACKING keeps %v, %v", what, left, err)
	}
}

// TestRefusalsUnderLoad: BACKING refuses a part of all requests while other workers use the same
// files. Each caller is told; a failed call leaves old bytes or new; and synced data is there
// afterwards.
func TestRefusalsUnderLoad(t *testing.T) {
	t.Parallel()
	o := newOutage(t, powerloss.Options{})
	o.workers = nil
	if err := o.begin(); err != nil {
		t.Fatal(err)
	}
	var faults, heard atomic.Int64
	var working sync.WaitGroup
	files := []*past{{name: "vm.nvram"}, {name: "vm.img"}, {name: "vm.vmx", clear: true}, {name: "vm.log", clear: true}}
	for _, p := range files {
		if err := p.prepare(o.d); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(rand.Uint64(), 0)) // SetFault's function runs alone
	o.disk.SetFault(func(op powerloss.Op, _ string) unix.Errno {
		if op == powerloss.Read || rng.IntN(12) != 0 {
			return 0
		}
		faults.Add(1)
		return refusals[rng.IntN(len(refusals))]
	})
	for i, p := range files {
		working.Go(func() {
			n, err := p.endure(o.d, rand.New(rand.NewPCG(rand.Uint64(), uint64(i))), 300)
			heard.Add(int64(n))
			if err != nil {
				t.Error(err)
			}
		})
	}
	working.Wait()
	o.disk.SetFault(nil)
	for _, p := range files {
		if err := p.sync(o.d); err != nil {
			t.Errorf("%s, once BACKING works: %v", p.name, err)
		}
	}
	o.workers = []worker{files[0], files[1], files[2], files[3]}
	if n := o.d.Status().IO.BackingErrors; n < heard.Load() {
		t.Errorf("status counts %d errors of BACKING, callers heard of %d", n, heard.Load())
	}
	o.disk.Off()
	o.d.Kill()
	if err := o.ground.down(); err != nil {
		t.Fatal(err)
	}
	o.disk = o.disk.Cut(1)
	if err := o.look(); err != nil {
		t.Error(err)
	}
	tally.Add(t, "faults", int(faults.Load()))
	t.Logf("%d faults, %d heard of", faults.Load(), heard.Load())
}

// endure works despite failing calls, and checks the file's content after each failure.
func (p *past) endure(d *mounttest.Datastore, rng *rand.Rand, steps int) (heard int, err error) {
	f, err := openAtLast(d.Path(p.name))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for range steps {
		err := p.step(f, rng)
		if err == nil && rng.IntN(6) == 0 {
			if err = f.Sync(); err == nil {
				p.versions = [][]byte{p.now()}
			}
		}
		if err == nil {
			continue
		}
		heard++
		if !isRefusal(err) {
			return heard, fmt.Errorf("%s: %w, which BACKING never said", p.name, err)
		}
		if err := p.check(d); err != nil {
			return heard, fmt.Errorf("after %v: %w", err, err)
		}
		got, err := os.ReadFile(d.Path(p.name))
		if err != nil {
			return heard, err
		}
		p.versions = append(p.versions, got)
	}
	return heard, nil
}

// openAtLast opens, and tries again while BACKING refuses.
func openAtLast(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil || !isRefusal(err) {
			return f, err
		}
	}
}

func isRefusal(err error) bool {
	for _, errno := range refusals {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// sync makes the present content the required content.
func (p *past) sync(d *mounttest.Datastore) error {
	if err := onFile(p.name, 0, (*os.File).Sync)(d); err != nil {
		return err
	}
	if err := p.check(d); err != nil {
		return err
	}
	return p.adopt(d)
}
