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
	"vmcryptfs/integration/tally"
)

var (
	fsxOps  = flag.Int("fsx.ops", 0, "steps of each run of TestFsx and of TestFsxThreads; 0: 3000, and for make test-slow a million in all")
	fsxSeed = flag.Uint64("fsx.seed", 0, "seed of TestFsx and TestFsxThreads; 0: another one each time")
)

// fsxMax bounds the files, in bytes: a number of pages and of units, and a bit.
const fsxMax = 160<<10 + 777

// fsx is one file under random system calls, as in the tester of the same name. The file is open
// twice, buffered and with O_DIRECT, and mapped all the time.
type fsx struct {
	t      *testing.T
	d      *datastore
	name   string
	rnd    *rand.Rand
	want   []byte // required content
	fd     [2]int // buffered, O_DIRECT
	shared []byte // mapping of fsxMax bytes; pages past the file's last one fault
	recent []string
}

// fsxRun is one sequence of operations.
type fsxRun struct {
	name  string
	file  string
	tmpfs bool // no O_DIRECT and no zero-range in BACKING
}

// TestFsx runs random operations on one file of each form in both ways of BACKING, and compares
// the file with the required content after each operation.
func TestFsx(t *testing.T) {
	t.Parallel()
	for i, run := range []fsxRun{
		{"encrypted", "fsx.img", false},
		{"clear", "fsx.log", false},
		{"inspect", "fsx.vmdk", false},
		{"encrypted on tmpfs", "fsx.raw", true},
	} {
		for stream := range fsxSeeds() {
			t.Run(fmt.Sprint(run.name, " ", stream), func(t *testing.T) {
				t.Parallel()
				run.do(t, uint64(stream*16+i))
			})
		}
	}
}

func (run fsxRun) do(t *testing.T, stream uint64) {
	d := newUnmounted(t, mounttest.Embedded{Dir: filepath.Join(t.TempDir(), "devkms")})
	if run.tmpfs {
		d.onTmpfs()
	}
	d.Mount()
	x := &fsx{t: t, d: d, name: run.file, rnd: seeded(t, stream)}
	x.open(os.O_CREATE)
	steps := fsxSteps(50_000)
	for range steps {
		x.step()
	}
	x.same("the whole file", x.readAll(x.fd[0]))
	x.close()
	x.wantBacking()
	d.Remount()
	wantSame(t, "after a remount", d.Read(run.file), x.want)
	tally.Add(t, "operations compared", steps)
}

// fsxSeeds is the number of sequences of each kind, and fsxSteps the length of a sequence: large
// in make test-slow, a million steps together with TestFsxThreads.
func fsxSeeds() int {
	if tally.Slow() {
		return 2
	}
	return 1
}

func fsxSteps(slow int) int {
	switch {
	case *fsxOps > 0:
		return *fsxOps
	case tally.Slow():
		return slow
	default:
		return 3000
	}
}

// seeded makes the random numbers of one sequence, and logs how to repeat the sequence.
func seeded(t *testing.T, stream uint64) *rand.Rand {
	seed := *fsxSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-fsx.seed=%d", seed)
	return rand.New(rand.NewPCG(seed, stream))
}

// fsxStep is a kind of operation.
type fsxStep struct {
	weight int
	do     func(*fsx)
}

// fsxKinds are all kinds of steps; steps costly for the daemon are rare.
var fsxKinds = []fsxStep{
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
	for _, s := range fsxKinds {
		total += s.weight
	}
	at := x.rnd.IntN(total)
	for _, s := range fsxKinds {
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
		fd, err := mounttest.Open(x.d.Path(x.name), unix.O_RDWR|create|flag, 0o644)
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

// look compares the size, and content in one of the ways in turn: of the whole file now
// and then, else of a part.
func (x *fsx) look() {
	x.t.Helper()
	var st unix.Stat_t
	if x.must(unix.Fstat(x.fd[x.rnd.IntN(2)], &st)); st.Size != int64(len(x.want)) {
		x.fatalf("size %d, want %d", st.Size, len(x.want))
	}
	if x.rnd.IntN(6) > 0 {
		x.lookAtPart()
		return
	}
	switch x.rnd.IntN(4) {
	case 0:
		x.same("a new descriptor", x.d.Read(x.name))
	case 1:
		x.same("the mapping", x.shared[:len(x.want)])
	case 2:
		x.same("the direct descriptor", x.readAll(x.fd[1]))
	default:
		x.same("the buffered descriptor", x.readAll(x.fd[0]))
	}
}

func (x *fsx) lookAtPart() {
	x.t.Helper()
	if len(x.want) == 0 {
		return
	}
	off, n := x.extent(len(x.want))
	want := x.want[off:][:n]
	switch way := x.rnd.IntN(3); way {
	case 0:
		if !bytes.Equal(x.shared[off:][:n], want) {
			x.differs("the mapping", off, x.shared[off:][:n], want)
		}
	default: // a direct read ends at the end of the file, too
		got := aligned(n + 2*unitSize)
		from := off &^ (unitSize - 1)
		m, err := unix.Pread(x.fd[way-1], got[:(off+n-from+unitSize-1)&^(unitSize-1)], int64(from))
		x.must(err)
		if m < off+n-from {
			x.fatalf("descriptor %d: %d bytes at %d, want %d", way-1, m, from, off+n-from)
		}
		if got = got[off-from:][:n]; !bytes.Equal(got, want) {
			x.differs(fmt.Sprintf("descriptor %d", way-1), off, got, want)
		}
	}
}

func (x *fsx) differs(what string, off int, got, want []byte) {
	x.t.Helper()
	x.t.Logf("last operations:\n%s", strings.Join(x.recent, "\n"))
	wantSame(x.t, fmt.Sprintf("%s, from %d on", what, off), got, want)
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
		x.differs(what, 0, got, x.want)
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
