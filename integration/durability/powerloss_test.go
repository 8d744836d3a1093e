package durability

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/powerloss"
	"vmcryptfs/integration/tally"
)

// ground puts a forgetting disk under BACKING.
type ground interface {
	up(disk *powerloss.Disk) error
	down() error
}

// bare is the disk as BACKING itself.
type bare struct {
	backing string
	mount   *powerloss.Mount
}

func (b *bare) up(disk *powerloss.Disk) (err error) {
	b.mount, err = disk.Serve(b.backing)
	return err
}

func (b *bare) down() error {
	if b.mount == nil {
		return nil
	}
	m := b.mount
	b.mount = nil
	return m.Unmount()
}

// outage is a datastore on a forgetting disk, and the workers on the datastore.
type outage struct {
	t       *testing.T
	d       *mounttest.Datastore
	ground  ground
	disk    *powerloss.Disk
	workers []worker
	cuts    int
	calls   atomic.Int64 // answered
	spread  int64        // calls until a cut, at most
}

// begin makes the datastore and the workers' first files, all durable.
func (o *outage) begin() error {
	if err := o.ground.up(o.disk); err != nil {
		return err
	}
	o.t.Cleanup(func() { // the daemon first: the daemon holds BACKING
		if o.d.PID != 0 {
			o.d.Kill()
		}
		if err := o.ground.down(); err != nil {
			o.t.Error(err)
		}
	})
	o.d.Mount()
	for _, w := range o.workers {
		if err := w.prepare(o.d); err != nil {
			return err
		}
	}
	return nil
}

// round cuts the power under load and checks some of the possible states afterwards; the next
// round begins with the last state.
func (o *outage) round(seed uint64, states int) error {
	o.load(seed, o.disk.Off)
	o.d.Kill()
	if err := o.ground.down(); err != nil {
		return err
	}
	before := o.disk
	for i := range states {
		o.disk = before.Cut(seed<<8 + uint64(i))
		o.cuts++
		if err := o.look(); err != nil {
			return fmt.Errorf("seed %d, state %d: %w", seed, i, err)
		}
		if i < states-1 {
			o.d.Kill()
			if err := o.ground.down(); err != nil {
				return err
			}
		}
	}
	for _, w := range o.workers {
		if err := w.adopt(o.d); err != nil {
			return err
		}
	}
	return nil
}

// load lets the workers work until cut, called once, has ended the work.
func (o *outage) load(seed uint64, cut func()) {
	var working sync.WaitGroup
	rng := rand.New(rand.NewPCG(seed, 1))
	left := atomic.Int64{}
	left.Store(1 + rng.Int64N(o.spread))
	answered := func() error {
		o.calls.Add(1)
		if left.Add(-1) == 0 {
			cut()
		}
		if o.disk.IsOff() {
			return unix.EIO
		}
		return nil
	}
	for i, w := range o.workers {
		working.Go(func() {
			if err := w.work(o.d, rand.New(rand.NewPCG(seed, uint64(i)+2)), answered); left.Load() > 0 {
				o.t.Errorf("%T refused before the end: %v", w, err)
				o.disk.Off()
			}
		})
	}
	working.Wait()
}

// look mounts the remains and makes every worker check them.
func (o *outage) look() error {
	if err := o.ground.up(o.disk); err != nil {
		return broken("BACKING after the power loss: %v", err)
	}
	if r := o.d.TryMount(); r.Code != 0 {
		return broken("%v", r)
	}
	var errs []error
	for _, w := range o.workers {
		errs = append(errs, w.check(o.d))
	}
	if s := o.d.Status(); s.IO.Damaged > 0 {
		errs = append(errs, broken("%d times damage was met", s.IO.Damaged))
	}
	return errors.Join(errs...)
}

// everyPromise is one worker for each way of asking for durability.
func everyPromise() []worker {
	return []worker{
		&blocks{name: "a-fsync-flat.vmdk"},
		&blocks{name: "b-fdatasync.img", data: true},
		&blocks{name: "c-direct.img", flags: unix.O_DIRECT, data: true},
		&blocks{name: "d-direct-dsync.img", flags: unix.O_DIRECT | unix.O_DSYNC},
		&blocks{name: "e-sync.img", flags: unix.O_SYNC},
		&blocks{name: "f-rwf-dsync.img", rwf: unix.RWF_DSYNC},
		&blocks{name: "g-direct-rwf-sync.img", flags: unix.O_DIRECT, rwf: unix.RWF_SYNC},
		&past{name: "vm.nvram"},
		&past{name: "vm.vmx", clear: true},
		&replaces{name: "saved.vmx", temp: "saved.vmx.tmp"},
		&replaces{name: "saved.nvram", temp: "saved.nvram.new"},
		&replaces{name: "turned.vmx", temp: "turned.bin"}, // to clear: renamed, then converted
		&replaces{name: "hidden.bin", temp: "hidden.xml"}, // to encrypted: converted, then renamed
		&newcomers{dir: "home"},
		&binds{name: "vm.vmdk"},
		&rekeys{},
	}
}

func newOutage(t *testing.T, o powerloss.Options) *outage {
	d := mounttest.NewUnmounted(t, mounttest.Embedded{Dir: filepath.Join(t.TempDir(), "devkms")})
	return &outage{
		t: t, d: d, ground: &bare{backing: d.Backing}, disk: powerloss.New(o),
		workers: everyPromise(), spread: 1500,
	}
}

// TestPowerLoss cuts the power of BACKING under load, many times.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]powerloss.Options{
		"strict":          {},
		"journal":         {Journal: true},
		"without tmpfile": {NoTmpfile: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newOutage(t, options).rounds(2, 30)
		})
	}
}

// rounds is so many rounds, in make test-slow many, of four states.
func (o *outage) rounds(few, many int) {
	o.t.Helper()
	if err := o.begin(); err != nil {
		o.t.Fatal(err)
	}
	if tally.Slow() {
		few = many
	}
	first := rand.Uint64() >> 16
	for i := range few {
		if err := o.round(first+uint64(i), 4); err != nil {
			o.t.Fatal(err)
		}
	}
	tally.Add(o.t, "power losses", o.cuts)
	o.t.Logf("%d power losses, %d calls answered before them", o.cuts, o.calls.Load())
}

// TestPowerLossLiar is the control: a BACKING that answers syncs without syncing is found out.
func TestPowerLossLiar(t *testing.T) {
	t.Parallel()
	o := newOutage(t, powerloss.Options{})
	if err := o.begin(); err != nil {
		t.Fatal(err)
	}
	o.disk.SetOptions(powerloss.Options{Lies: true})
	o.wantFoundOut()
}

// wantFoundOut cuts until a promise is broken; a cut that happens to lose nothing proves nothing.
func (o *outage) wantFoundOut() {
	o.t.Helper()
	for seed := range uint64(10) {
		err := o.round(seed, 2)
		if errors.Is(err, errPromise) {
			o.t.Logf("found out at cut %d: %v", o.cuts, err)
			return
		}
		if err != nil {
			o.t.Fatal(err)
		}
	}
	o.t.Errorf("%d power losses of a BACKING that lies about fsync, and nothing was missed", o.cuts)
}
