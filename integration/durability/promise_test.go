package durability

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// worker is a load that knows the promises received. A worker works until a call fails; after the
// power loss check returns the promises broken by the mount.
type worker interface {
	// prepare makes the first files, durably.
	prepare(d *mounttest.Datastore) error
	// work continues until a call is refused. work calls answered after each answered call,
	// before counting the answer as a promise: an error of answered means that the power was off
	// already, and so nobody was answered.
	work(d *mounttest.Datastore, rng *rand.Rand, answered func() error) error
	// check looks, and changes nothing.
	check(d *mounttest.Datastore) error
	// adopt accepts the state found by check as the new truth.
	adopt(d *mounttest.Datastore) error
}

// errPromise is a broken promise.
var errPromise = errors.New("promise broken")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errPromise, fmt.Sprintf(format, args...))
}

// past is a file changed at will. After a power loss, the file may hold the content of its last
// sync or of some time since, unit by unit, and the size by itself. For a cleartext file the same
// holds for each byte: BACKING alone makes its promises.
type past struct {
	name     string
	clear    bool
	versions [][]byte // the first one is durable
}

const maxPast = 20 << 10

func (p *past) prepare(d *mounttest.Datastore) error {
	p.versions = [][]byte{[]byte("# what was there at first\n")}
	return writeDurably(d.Path(p.name), p.versions[0])
}

// writeDurably makes a file and syncs the file and its directory.
func writeDurably(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return syncDirOf(path)
}

func (p *past) now() []byte { return p.versions[len(p.versions)-1] }

func (p *past) work(d *mounttest.Datastore, rng *rand.Rand, answered func() error) error {
	f, err := os.OpenFile(d.Path(p.name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for {
		if err := p.step(f, rng); err != nil {
			return err
		}
		if err := answered(); err != nil {
			return err
		}
		if rng.IntN(6) != 0 {
			continue
		}
		if err := syncFile(f, rng.IntN(2) == 0); err != nil {
			return err
		}
		if err := answered(); err != nil {
			return err
		}
		p.versions = [][]byte{p.now()}
	}
}

func syncFile(f *os.File, data bool) error {
	if data {
		return mounttest.Uninterrupted(func() error { return unix.Fdatasync(int(f.Fd())) })
	}
	return f.Sync()
}

// step records the future content of the file, then makes the change: a failing call may have
// done its work all the same.
func (p *past) step(f *os.File, rng *rand.Rand) error {
	old := p.now()
	off, n := rng.IntN(maxPast/2), 1+rng.IntN(3000)
	switch rng.IntN(6) {
	case 0: // a new length
		size := rng.IntN(maxPast / 2)
		p.versions = append(p.versions, resizedTo(old, size))
		return f.Truncate(int64(size))
	case 1:
		p.versions = append(p.versions, blanked(old, off, n, len(old)))
		return fallocate(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	case 2:
		p.versions = append(p.versions, blanked(old, off, n, max(len(old), off+n)))
		return fallocate(f, unix.FALLOC_FL_ZERO_RANGE, off, n)
	case 3: // append
		off = min(len(old), maxPast)
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32()) | 1 // a zero could be a hole
	}
	next := resizedTo(old, max(len(old), off+n))
	copy(next[off:], b)
	p.versions = append(p.versions, next)
	_, err := f.WriteAt(b, int64(off))
	return err
}

func fallocate(f *os.File, mode uint32, off, n int) error {
	return mounttest.Uninterrupted(func() error { return unix.Fallocate(int(f.Fd()), mode, int64(off), int64(n)) })
}

func resizedTo(p []byte, n int) []byte {
	q := make([]byte, n)
	copy(q, p)
	return q
}

func blanked(p []byte, off, n, size int) []byte {
	q := resizedTo(p, size)
	clear(q[min(off, size):min(off+n, size)])
	return q
}

func (p *past) check(d *mounttest.Datastore) error {
	got, err := os.ReadFile(d.Path(p.name))
	if err != nil {
		return broken("%s: %v", p.name, err)
	}
	if !sizeOf(p.versions, len(got)) && !(p.clear && sizeBetween(p.versions, len(got))) {
		var sizes []int
		for _, v := range p.versions {
			sizes = append(sizes, len(v))
		}
		return broken("%s: %d bytes, and since its last sync it had %d", p.name, len(got), sizes)
	}
	granule := unitSize
	if p.clear {
		granule = 1
	}
	for at := 0; at < len(got); at += granule {
		if unit := got[at:min(at+granule, len(got))]; !unitOf(p.versions, at, unit, len(got)) {
			return broken("%s: %d bytes: the unit at %d, %x…, is none since its last sync (%d versions)", p.name, len(got), at, unit[:min(16, len(unit))], len(p.versions))
		}
	}
	return nil
}

// sizeOf reports whether n is the size of one of the versions, or, where a version was being cut
// or grown to the next, a multiple of 512 between.
func sizeOf(versions [][]byte, n int) bool {
	for i, v := range versions {
		if n == len(v) {
			return true
		}
		if i > 0 && n%unitSize == 0 && (n-len(v))*(n-len(versions[i-1])) < 0 {
			return true
		}
	}
	return false
}

// sizeBetween reports whether n is between the sizes of versions: a punch or a zeroing beyond the
// length on disk extends ext4's length there up to the end of the operation.
func sizeBetween(versions [][]byte, n int) bool {
	var sizes []int
	for _, v := range versions {
		sizes = append(sizes, len(v))
	}
	return slices.Min(sizes) <= n && n <= slices.Max(sizes)
}

// unitOf reports whether unit, at offset at of a file with size now, belongs to one of the
// versions. Past the end of the version come zeros, or the earlier bytes if the cut to the
// version was lost.
func unitOf(versions [][]byte, at int, unit []byte, size int) bool {
	for i, v := range versions {
		if bytes.Equal(unit, resizedTo(v[min(at, len(v)):], len(unit))) {
			return true
		}
		inside := min(max(len(v)-at, 0), len(unit))
		if !bytes.Equal(unit[:inside], v[min(at, len(v)):][:inside]) {
			continue
		}
		cut := func(old []byte) bool {
			return bytes.Equal(unit[inside:], resizedTo(old[min(at+inside, len(old)):], len(unit)-inside))
		}
		if sizeOf(versions[:i], size) && slices.ContainsFunc(versions[:i], cut) {
			return true
		}
	}
	return false
}

func (p *past) adopt(d *mounttest.Datastore) error {
	got, err := os.ReadFile(d.Path(p.name))
	p.versions = [][]byte{got}
	return err
}

// blocks is a disk of a guest: whole blocks written in place, each with its version in every
// unit. Durability of a block depends on the way of writing.
type blocks struct {
	name  string
	flags int  // of the open
	rwf   int  // of each write
	data  bool // fdatasync now and then, else fsync
	// Of each unit: the durable version, and the last one requested.
	durable, asked [blocksOfPower]uint32
}

const blocksOfPower = 96 // units

func (b *blocks) prepare(d *mounttest.Datastore) error {
	var all []byte
	for i := range blocksOfPower {
		all = append(all, b.unit(i, 0)...)
	}
	return writeDurably(d.Path(b.name), all)
}

func (b *blocks) unit(i int, version uint32) []byte {
	u := make([]byte, unitSize)
	for at := 0; at < unitSize; at += 8 {
		copy(u[at:], []byte{byte(version), byte(version >> 8), byte(version >> 16), byte(i), byte(at), byte(at >> 8), b.name[0], 0xa5})
	}
	return u
}

func (b *blocks) work(d *mounttest.Datastore, rng *rand.Rand, answered func() error) error {
	f, err := os.OpenFile(d.Path(b.name), os.O_RDWR|b.flags, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for {
		i := rng.IntN(blocksOfPower)
		n := min(1+rng.IntN(8), blocksOfPower-i)
		p := aligned(n * unitSize)
		for j := range n {
			b.asked[i+j]++
			copy(p[j*unitSize:], b.unit(i+j, b.asked[i+j]))
		}
		if err := b.write(f, p, int64(i)*unitSize); err != nil {
			return err
		}
		if err := answered(); err != nil {
			return err
		}
		if b.flags&unix.O_DSYNC != 0 || b.rwf != 0 {
			copy(b.durable[i:i+n], b.asked[i:])
			continue
		}
		if rng.IntN(8) != 0 {
			continue
		}
		if err := syncFile(f, b.data); err != nil {
			return err
		}
		if err := answered(); err != nil {
			return err
		}
		b.durable = b.asked
	}
}

func (b *blocks) write(f *os.File, p []byte, off int64) error {
	n := 0
	err := mounttest.Uninterrupted(func() (err error) {
		n, err = unix.Pwritev2(int(f.Fd()), [][]byte{p}, off, b.rwf)
		return err
	})
	if err == nil && n < len(p) {
		return io.ErrShortWrite
	}
	return err
}

func (b *blocks) check(d *mounttest.Datastore) error {
	_, err := b.read(d)
	return err
}

// read returns the version of each unit.
func (b *blocks) read(d *mounttest.Datastore) (versions [blocksOfPower]uint32, err error) {
	got, err := os.ReadFile(d.Path(b.name))
	if err != nil || len(got) != blocksOfPower*unitSize {
		return versions, broken("%s: %d bytes, %v", b.name, len(got), err)
	}
	for i := range versions {
		u := got[i*unitSize:][:unitSize]
		versions[i] = uint32(u[0]) | uint32(u[1])<<8 | uint32(u[2])<<16
		if !bytes.Equal(u, b.unit(i, versions[i])) {
			return versions, broken("%s: unit %d is noise: %x…", b.name, i, u[:16])
		}
		if v := versions[i]; v < b.durable[i] || v > b.asked[i] {
			return versions, broken("%s: unit %d has version %d, want %d to %d", b.name, i, v, b.durable[i], b.asked[i])
		}
	}
	return versions, nil
}

func (b *blocks) adopt(d *mounttest.Datastore) (err error) {
	b.durable, err = b.read(d)
	b.asked = b.durable
	return err
}

// rekeys puts the whole datastore under new keys, again and again. All other workers check that
// every file opens afterwards.
type rekeys struct{ done atomic.Int64 }

func (r *rekeys) prepare(*mounttest.Datastore) error { return nil }
func (r *rekeys) check(*mounttest.Datastore) error   { return nil }
func (r *rekeys) adopt(*mounttest.Datastore) error   { return nil }

func (r *rekeys) work(d *mounttest.Datastore, _ *rand.Rand, answered func() error) error {
	for {
		if c := d.Command("rekey", d.Mnt, "--new"); c.Code != 0 {
			return errors.New(c.String())
		}
		r.done.Add(1)
		if err := answered(); err != nil {
			return err
		}
	}
}
