package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

const (
	blockSize   = 4096
	blocksOfJob = 256
)

// job is one writer: the job overwrites random blocks of its file with ever newer versions and
// remembers for each block the last version with an answered write.
type job struct {
	name     string
	flags    int
	answered [blocksOfJob]uint32
	asked    [blocksOfJob]uint32 // ≥ answered; greater when a write was under way at the kill
	length   int64               // of the part appended and answered, in blocks
}

// TestKill ends the daemon with SIGKILL in the middle of verified loads, buffered, direct and
// synchronous. After the remount every answered write is there; an unanswered one is there or
// not, unit by unit.
func TestKill(t *testing.T) {
	t.Parallel()
	rounds := 5
	if tally.Slow() {
		rounds = 50
	}
	d := newDatastore(t)
	jobs := []*job{
		{name: "buffered-flat.vmdk"},
		{name: "direct-flat.vmdk", flags: unix.O_DIRECT},
		{name: "dsync-flat.vmdk", flags: unix.O_DIRECT | unix.O_DSYNC},
		{name: "vmware.log"},
	}
	for _, j := range jobs {
		j.create(t, d)
	}
	var writes, creates uint64
	for round := range rounds {
		var answered atomic.Uint64
		var done sync.WaitGroup
		enough := make(chan struct{})
		target := 300 + rand.Uint64N(3000)
		count := func() {
			if answered.Add(1) == target {
				close(enough)
			}
		}
		for _, j := range jobs {
			done.Go(func() { j.load(t, d, round, count) })
		}
		var names nameLoad
		done.Go(func() { names.run(d, round, count) })
		<-enough
		d.KillUnder(done.Wait)
		d.Mount()
		for _, j := range jobs {
			j.check(t, d, round)
		}
		names.check(t, d)
		writes += answered.Load()
		creates += uint64(names.made)
		if t.Failed() {
			t.Fatalf("round %d: killed after %d answers", round, target)
		}
	}
	d.verify()
	tally.Add(t, "kills", rounds)
	t.Logf("%d kills under load, %d answered calls checked (%d of them on names)", rounds, writes, creates)
}

func (j *job) create(t *testing.T, d *datastore) {
	t.Helper()
	all := make([]byte, 0, blocksOfJob*blockSize)
	for i := range blocksOfJob {
		all = append(all, j.block(i, 0)...)
	}
	d.Write(j.name, all)
	j.length = blocksOfJob
}

// block is a block's content in a version: every 8 bytes differ.
func (j *job) block(i int, version uint32) []byte {
	b := aligned(blockSize)
	for at := 0; at < blockSize; at += 8 {
		binary.LittleEndian.PutUint32(b[at:], version)
		binary.LittleEndian.PutUint16(b[at+4:], uint16(i))
		binary.LittleEndian.PutUint16(b[at+6:], uint16(at))
	}
	return b
}

// load writes until the daemon dies.
func (j *job) load(t *testing.T, d *datastore, round int, answered func()) {
	fd, err := mounttest.Open(d.Path(j.name), unix.O_RDWR|j.flags, 0)
	if err != nil {
		t.Errorf("open %s: %v", j.name, err)
		return
	}
	defer func() { _ = unix.Close(fd) }()
	random := rand.New(rand.NewPCG(uint64(round), uint64(len(j.name))))
	for {
		i := random.IntN(blocksOfJob)
		j.asked[i]++
		if _, err := unix.Pwrite(fd, j.block(i, j.asked[i]), int64(i)*blockSize); err != nil {
			return
		}
		j.answered[i] = j.asked[i]
		answered()
		if random.IntN(8) == 0 {
			if _, err := unix.Pwrite(fd, j.block(int(j.length), 0), j.length*blockSize); err != nil {
				return
			}
			j.length++
			answered()
		}
	}
}

// check reads the file back. A block may hold, in each unit, the answered version or one
// requested and not answered.
func (j *job) check(t *testing.T, d *datastore, round int) {
	t.Helper()
	got := d.Read(j.name)
	if int64(len(got)) < j.length*blockSize {
		t.Errorf("%s: %d bytes after kill %d, %d were answered", j.name, len(got), round, j.length*blockSize)
		return
	}
	for i := range int(j.length) {
		var answered, asked uint32
		if i < blocksOfJob {
			answered, asked = j.answered[i], j.asked[i]
		}
		before, after := j.block(i, answered), j.block(i, asked)
		for at := 0; at < blockSize; at += unitSize {
			unit := got[i*blockSize+at:][:unitSize]
			if !bytes.Equal(unit, before[at:][:unitSize]) && !bytes.Equal(unit, after[at:][:unitSize]) {
				t.Errorf("%s: block %d, byte %d after kill %d: %x…, want version %d or %d", j.name, i, at, round, unit[:16], answered, asked)
				return
			}
		}
	}
	j.settle(t, d)
}

// settle repeats the writes of blocks cut off, so the next round has two versions to tell apart,
// not three.
func (j *job) settle(t *testing.T, d *datastore) {
	t.Helper()
	f, err := os.OpenFile(d.Path(j.name), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for i := range blocksOfJob {
		if j.answered[i] == j.asked[i] {
			continue
		}
		if _, err := f.WriteAt(j.block(i, j.asked[i]), int64(i)*blockSize); err != nil {
			t.Fatal(err)
		}
		j.answered[i] = j.asked[i]
	}
}

// nameLoad creates, renames and removes files of both forms until the daemon dies.
type nameLoad struct {
	made    int
	present map[string][]byte
	pending string // the name in whose call the daemon died
}

func (n *nameLoad) run(d *datastore, round int, answered func()) {
	n.present = map[string][]byte{}
	for i := 0; ; i++ {
		name := fmt.Sprintf("names-%d-%d", round, i) + []string{".log", ".nvram", ".vmx", ".img"}[i%4]
		n.pending = name
		content := []byte("content of " + name)
		f, err := os.OpenFile(d.Path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return
		}
		_, err = f.Write(content)
		if cerr := f.Close(); err != nil || cerr != nil {
			return
		}
		n.made++
		answered()
		switch i % 3 {
		case 0:
			to := "renamed-" + name
			n.pending = to
			if err := os.Rename(d.Path(name), d.Path(to)); err != nil {
				n.present[name] = content // or to: looked at in check
				return
			}
			n.present[to] = content
		case 1:
			if err := os.Remove(d.Path(name)); err != nil {
				return
			}
		default:
			n.present[name] = content
		}
		answered()
	}
}

func (n *nameLoad) check(t *testing.T, d *datastore) {
	t.Helper()
	for name, want := range n.present {
		got, err := os.ReadFile(d.Path(name))
		if os.IsNotExist(err) && "renamed-"+name == n.pending {
			got, err = os.ReadFile(d.Path(n.pending))
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s after kill: %q (%v), want %q", name, got, err, want)
		}
	}
}
