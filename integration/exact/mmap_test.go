package exact

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// mapper is a process that touches a page of a mapping while the file is cut: "map FILE LENGTH
// FLAGS", "load OFFSET", "store OFFSET".
type mapper struct{ shared []byte }

func (m *mapper) obey(order []string) string {
	at, _ := strconv.Atoi(order[len(order)-1])
	switch order[0] {
	case "map":
		flags, _ := strconv.Atoi(order[3])
		length, _ := strconv.Atoi(order[2])
		fd, err := mounttest.Open(order[1], unix.O_RDWR|flags, 0)
		if err != nil {
			return errnoName(err)
		}
		m.shared, err = unix.Mmap(fd, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return errnoName(err)
	case "load":
		return m.touch(func() string { return strconv.Itoa(int(m.shared[at])) })
	default:
		return m.touch(func() string { m.shared[at] = 9; return "ok" })
	}
}

// touch answers "SIGBUS" for a missing page.
func (m *mapper) touch(f func() string) (answer string) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			answer = "SIGBUS"
		}
	}()
	return f()
}

// TestMappingCut: pages past the end of a file fault, come back after growth, and are zeros then.
func TestMappingCut(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	page := os.Getpagesize()
	for name, path := range map[string]string{"mount.img": o.d.Path("cut.img"), "mount.log": o.d.Path("cut.log"), "plain": o.plain + "/cut"} {
		for _, flags := range []int{0, unix.O_DIRECT} {
			t.Run(fmt.Sprintf("%s, flags %#x", name, flags), func(t *testing.T) {
				if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 4*page), 0o644); err != nil {
					t.Fatal(err)
				}
				m := startChild(t, "mapper")
				m.want("ok", "map %s %d %d", path, 4*page, flags)
				m.want("7", "load %d", 3*page)
				cut := func(n int) {
					if err := os.Truncate(path, int64(n)); err != nil {
						t.Fatal(err)
					}
				}
				cut(page + 100)
				m.want("SIGBUS", "load %d", 3*page)
				m.want("SIGBUS", "store %d", 2*page)
				m.want("7", "load %d", page+99)
				m.want("0", "load %d", page+100)
				m.want("ok", "store %d", page+200) // past the end in the last page: goes nowhere
				cut(4 * page)
				m.want("0", "load %d", 3*page)
				m.want("ok", "store %d", 3*page+1)
				m.kill()
				want := append(bytes.Repeat([]byte{7}, page+100), make([]byte, 3*page-100)...)
				want[3*page+1] = 9
				got, err := os.ReadFile(path)
				if err != nil || !bytes.Equal(got[page+256:], want[page+256:]) || !bytes.Equal(got[:page+100], want[:page+100]) {
					t.Errorf("%d bytes, not as stored (%v)", len(got), err)
				}
			})
		}
	}
}

// TestMappings compares how mappings and descriptors see one another's changes.
func TestMappings(t *testing.T) {
	t.Parallel()
	newOracle(t).compare(t, []check{
		{"shared", func(w *witness) { w.mapping(0, unix.MAP_SHARED) }},
		{"shared of a direct descriptor", func(w *witness) { w.mapping(unix.O_DIRECT, unix.MAP_SHARED) }},
		{"private", func(w *witness) { w.mapping(0, unix.MAP_PRIVATE) }},
		{"private of a direct descriptor", func(w *witness) { w.mapping(unix.O_DIRECT, unix.MAP_PRIVATE) }},
	})
}

// mapping stores and loads, writes and reads, through every way into one file.
func (w *witness) mapping(flags, kind int) {
	const size = 64 << 10
	path := w.file("file")
	w.create(path, string(bytes.Repeat([]byte("0123456789abcdef"), size/16)), 0o644)
	var fds []int
	for _, f := range []int{flags, 0, unix.O_DIRECT} {
		fd, err := mounttest.Open(path, unix.O_RDWR|f, 0)
		w.must(err)
		fds = append(fds, fd)
	}
	m, err := unix.Mmap(fds[0], 0, size, unix.PROT_READ|unix.PROT_WRITE, kind)
	if !w.tried("map", err) {
		return
	}
	second, err := unix.Mmap(fds[1], 0, size, unix.PROT_READ, unix.MAP_SHARED)
	w.must(err)
	w.must(unix.Close(fds[0])) // a mapping outlives the descriptor
	look := func(what string) {
		b := aligned(size)
		n, err := unix.Pread(fds[1], b, 0)
		w.saw("%s: read %d %s %x", what, n, errnoName(err), sums(b))
		n, err = unix.Pread(fds[2], b, 0)
		w.saw("read directly %d %s %x", n, errnoName(err), sums(b))
		w.saw("mapped %x, mapped again %x", sums(m), sums(second))
	}
	look("at first")
	copy(m[5000:], "stored through the mapping")
	look("stored")
	w.tried("msync", unix.Msync(m, unix.MS_SYNC))
	w.tried("msync", unix.Msync(m, unix.MS_ASYNC))
	look("synced")
	_, err = unix.Pwrite(fds[1], []byte("written through another descriptor"), 9000)
	w.tried("write", err)
	look("written")
	b := aligned(4096)
	copy(b, "written directly")
	_, err = unix.Pwrite(fds[2], b, 20480)
	w.tried("write directly", err)
	look("written directly")
	w.tried("punch", mounttest.Uninterrupted(func() error {
		return unix.Fallocate(fds[1], unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 30000, 20000)
	}))
	look("punched")
	w.tried("unmap", unix.Munmap(m))
	w.tried("unmap", unix.Munmap(second))
	w.must(unix.Close(fds[1]))
	w.must(unix.Close(fds[2]))
	text, err := os.ReadFile(path)
	w.saw("at last %x %s", sums(text), errnoName(err))
}

// sums is short for bytes, page by page.
func sums(b []byte) (s []uint32) {
	for page := range len(b) / 4096 {
		sum := uint32(2166136261)
		for _, c := range b[page*4096:][:4096] {
			sum = (sum ^ uint32(c)) * 16777619
		}
		s = append(s, sum)
	}
	return s
}
