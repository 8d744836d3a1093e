package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// TestFsxThreads lets threads work on one file at once, each on a range of its own, and compares
// each thread's reads with its writes. Ranges of buffered threads meet in the middle of units,
// and those of direct threads in the middle of pages: each write of one thread reads and writes
// cipher text next to another's.
func TestFsxThreads(t *testing.T) {
	t.Parallel()
	for stream := range fsxSeeds() {
		t.Run(fmt.Sprint(stream), func(t *testing.T) {
			t.Parallel()
			workOnOneFile(t, seeded(t, uint64(99+stream)))
		})
	}
}

func workOnOneFile(t *testing.T, rnd *rand.Rand) {
	d := newDatastore(t)
	const each = 10*unitSize + 331 // bytes of a buffered thread
	const direct = 11 * unitSize   // and of a direct one
	const middle = 64 << 10        // no page holds ranges of both
	d.Write("threads.img", make([]byte, middle+4*direct))
	var threads []*fsxThread
	for i := range 4 {
		threads = append(threads,
			&fsxThread{off: i * each, want: make([]byte, each), align: 1},
			&fsxThread{off: middle + i*direct, want: make([]byte, direct), align: unitSize, flags: unix.O_DIRECT})
	}
	steps := fsxSteps(300_000) / len(threads)
	tally.Add(t, "operations compared", steps*len(threads))
	var wg sync.WaitGroup
	for _, th := range threads {
		th.rnd = rand.New(rand.NewPCG(rnd.Uint64(), 0))
		wg.Go(func() {
			if err := th.run(d.Path("threads.img"), steps); err != nil {
				t.Errorf("the thread at %d, %d bytes: %v", th.off, len(th.want), err)
			}
		})
	}
	wg.Wait()
	d.Remount()
	got := d.Read("threads.img")
	for _, th := range threads {
		wantSame(t, fmt.Sprintf("the range at %d after a remount", th.off), got[th.off:][:len(th.want)], th.want)
	}
}

// fsxThread owns the range of its file beginning at off with the content want.
type fsxThread struct {
	off   int
	want  []byte
	align int // of offsets and lengths
	flags int // of open
	rnd   *rand.Rand
}

func (th *fsxThread) run(path string, ops int) error {
	fd, err := mounttest.Open(path, unix.O_RDWR|th.flags, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	shared, err := unix.Mmap(fd, 0, th.off+len(th.want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	defer func() { _ = unix.Munmap(shared) }()
	for range ops {
		if err := th.step(fd, shared[th.off:]); err != nil {
			return err
		}
	}
	return nil
}

// step changes a part of the range and reads the whole range.
func (th *fsxThread) step(fd int, mine []byte) error {
	at := th.rnd.IntN(len(th.want)/th.align) * th.align
	n := (1 + th.rnd.IntN((len(th.want)-at)/th.align)) * th.align
	part := th.want[at:][:n]
	kind := th.rnd.IntN(64)
	switch {
	case kind < 8 && th.flags == 0:
		// Buffered threads share pages with each other alone: a direct write, or a punch, drops
		// whole pages while another thread stores beside.
		th.scribble(part)
		copy(mine[at:], part)
	case kind < 8 && th.flags != 0:
		clear(part)
		if err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(th.off+at), int64(n)); err != nil {
			return fmt.Errorf("punch %d at %d: %w", n, th.off+at, err)
		}
	case kind == 8: // rare, as slow as a hundred writes
		if err := unix.Fdatasync(fd); err != nil {
			return fmt.Errorf("fdatasync: %w", err)
		}
	default:
		th.scribble(part)
		b := aligned(n)
		copy(b, part)
		if done, err := unix.Pwrite(fd, b, int64(th.off+at)); err != nil || done != n {
			return fmt.Errorf("write %d at %d: %d, %w", n, th.off+at, done, err)
		}
	}
	got := aligned(len(th.want))
	if n, err := unix.Pread(fd, got, int64(th.off)); err != nil || n != len(got) {
		return fmt.Errorf("read: %d bytes, %w", n, err)
	}
	if !bytes.Equal(got, th.want) {
		return fmt.Errorf("reads other bytes than it wrote (last: %d at %d)", n, th.off+at)
	}
	return nil
}

func (th *fsxThread) scribble(part []byte) {
	first := th.rnd.Uint32()
	for i := range part {
		part[i] = byte((first + uint32(i)*2654435761) >> 24)
	}
}
