package integration

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

var (
	fsxOps  = flag.Int("fsx.ops", 3000, "steps of each run of TestFsx, and of TestFsxThreads")
	fsxSeed = flag.Uint64("fsx.seed", 0, "seed of TestFsx and TestFsxThreads; 0: another one each time")
)

// fsxMax bounds the files, in bytes: a number of pages and of units, and a bit.
const fsxMax = 160<<10 + 777

// fsx is one file under random system calls, as in the tester of that name: it is open
// twice, buffered and with O_DIRECT, and mapped all the time.
type fsx struct {
	t      *testing.T
	d      *datastore
	name   string
	rnd    *rand.Rand
	want   []byte // what the file holds
	fd     [2]int // buffered, O_DIRECT
	shared []byte // mapping of fsxMax bytes; those past the last page of the file fault
	recent []string
}

// TestFsx runs random operations on one file of each form in both ways of BACKING, and
// compares the file with what it should hold after each of them.
func TestFsx(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		file  string
		tmpfs bool // no O_DIRECT and no zero-range in BACKING
	}{
		{"encrypted", "fsx.img", false},
		{"clear", "fsx.log", false},
		{"inspect", "fsx.vmdk", false},
		{"encrypted on tmpfs", "fsx.raw", true},
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newUnmounted(t, mounttest.Embedded{Dir: filepath.Join(t.TempDir(), "devkms")})
			if c.tmpfs {
				d.onTmpfs()
			}
			d.Mount()
			x := &fsx{t: t, d: d, name: c.file, rnd: seeded(t, uint64(i))}
			x.open(os.O_CREATE)
			for range *fsxOps {
				x.step()
			}
			x.close()
			x.wantBacking()
			d.Remount()
			wantSame(t, "after a remount", d.Read(c.file), x.want)
		})
	}
}

// seeded makes the random numbers of one run, and says how to have them again.
func seeded(t *testing.T, stream uint64) *rand.Rand {
	seed := *fsxSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-fsx.seed=%d -fsx.ops=%d", seed, *fsxOps)
	return rand.New(rand.NewPCG(seed, stream))
}

// fsxStep is a kind of operation.
type fsxStep struct {
	weight int
	do     func(*fsx)
}

// fsxSteps are all kinds; what costs the daemon most is rare.
var fsxSteps = []fsxStep{
	{20, (*fsx).write},
	{20, (*fsx).writeDirect},
	{20, (*fsx).store},
	{8, (*fsx).truncate},
	{8, func(x *fsx) { x.zeros(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE) }},
	{5, func(x *fsx) { x.zeros(unix.FALLOC_FL_ZERO_RANGE) }},
	{5, func(x *fsx) { x.zeros(unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE) }},
	{4, func(x *fsx) { x.allocate(0) }},
	{4, func(x *fsx) { x.allocate(unix.FALLOC_FL_KEEP_SIZE) }},
	{1, func(x *fsx) { x.refused(unix.FALLOC_FL_COLLAPSE_RANGE) }},
	{1, func(x *fsx) { x.refused(unix.FALLOC_FL_INSERT_RANGE) }},
	{10, (*fsx).copyRange},
	{3, (*fsx).appendTo},
	{1, (*fsx).sync},
	{3, (*fsx).drop},
	{3, (*fsx).reopen},
	{1, (*fsx).describe},
}

// step does one operation and compares.
func (x *fsx) step() {
	total := 0
	for _, s := range fsxSteps {
		total += s.weight
	}
	at := x.rnd.IntN(total)
	for _, s := range fsxSteps {
		if at -= s.weight; at < 0 {
			s.do(x)
			break
		}
	}
	x.look()
}

// note keeps the last operations for a failure's message.
func (x *fsx) note(format string, args ...any) {
	x.recent = append(x.recent, fmt.Sprintf(format, args...))
	if len(x.recent) > 24 {
		x.recent = x.recent[1:]
	}
}

func (x *fsx) fatalf(format string, args ...any) {
	x.t.Helper()
	x.t.Fatalf("%s\nlast operations:\n%s", fmt.Sprintf(format, args...), strings.Join(x.recent, "\n"))
}

func (x *fsx) must(err error) {
	x.t.Helper()
	if err != nil {
		x.fatalf("%v", err)
	}
}

func (x *fsx) open(create int) {
	x.note("open")
	for i, flag := range []int{0, unix.O_DIRECT} {
		fd, err := unix.Open(x.d.Path(x.name), unix.O_RDWR|unix.O_CLOEXEC|create|flag, 0o644)
		x.must(err)
		x.fd[i] = fd
	}
	shared, err := unix.Mmap(x.fd[0], 0, fsxMax, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	x.must(err)
	x.shared = shared
}

func (x *fsx) close() {
	x.note("close")
	x.must(unix.Munmap(x.shared))
	x.must(unix.Close(x.fd[0]))
	x.must(unix.Close(x.fd[1]))
}

// look compares size and content, one of the ways in turn.
func (x *fsx) look() {
	x.t.Helper()
	var st unix.Stat_t
	if x.must(unix.Fstat(x.fd[x.rnd.IntN(2)], &st)); st.Size != int64(len(x.want)) {
		x.fatalf("size %d, want %d", st.Size, len(x.want))
	}
	switch x.rnd.IntN(8) {
	case 0:
		x.same("a new descriptor", x.d.Read(x.name))
	case 1, 2:
		x.same("the mapping", x.shared[:len(x.want)])
	case 3, 4:
		x.same("the direct descriptor", x.readAll(x.fd[1]))
	default:
		x.same("the buffered descriptor", x.readAll(x.fd[0]))
	}
}

func (x *fsx) readAll(fd int) []byte {
	x.t.Helper()
	b := aligned(fsxMax + unitSize)
	n, err := readFull(fd, b)
	x.must(err)
	return b[:n]
}

func (x *fsx) same(what string, got []byte) {
	x.t.Helper()
	if !bytes.Equal(got, x.want) {
		x.t.Logf("last operations:\n%s", strings.Join(x.recent, "\n"))
		wantSame(x.t, what, got, x.want)
	}
}

// wantBacking compares BACKING, read without the program, with the model.
func (x *fsx) wantBacking() {
	x.t.Helper()
	if x.d.Form(x.name) != "encrypted" {
		got, err := os.ReadFile(x.d.Below(x.name))
		x.must(err)
		x.same("BACKING", got)
		return
	}
	p, done, err := x.d.openBacking(x.name)
	x.must(err)
	defer done()
	got, err := p.all()
	x.must(err)
	x.same("BACKING decrypted", got)
}
