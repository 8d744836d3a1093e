package fs

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReadDirNarrow has 32-bit programs list a directory, whose offsets in BACKING have 63 bits.
func TestReadDirNarrow(t *testing.T) {
	r := newRig(t, nil)
	const count = 3000
	for i := range count {
		r.plant(fmt.Sprintf("file-%04d.log", i), "")
	}
	r.plant(".vmcryptfs-hidden", "")
	archs := []string{""} // a program that looks like one of 32 bits
	if runs386(t) {
		archs = append(archs, "386")
	}
	for _, arch := range archs {
		program := filepath.Join(t.TempDir(), "narrow")
		build := exec.Command("go", "build", "-o", program, "./testdata/narrow")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if arch != "" {
			build.Env = append(build.Env, "GOARCH="+arch)
		}
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out, err := exec.Command(program, r.mnt).CombinedOutput()
		if want := fmt.Sprintln(count+2, "entries"); err != nil || string(out) != want {
			t.Errorf("a program for %q: %v, %s, want %s", arch, err, out, want)
		}
	}
	// Other programs see BACKING's offsets.
	fd, err := unix.Open(r.mnt, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	below, err := unix.Open(r.backing, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(below)
	_, got, _ := entries(t, fd)
	_, want, _ := entries(t, below)
	for name, off := range got {
		if off != want[name] {
			t.Fatalf("%s: offset %#x, want BACKING's %#x", name, off, want[name])
		}
	}
}

// runs386 reports whether this machine runs 32-bit programs; the test program only exits.
func runs386(t *testing.T) bool {
	t.Helper()
	const base, headers = 0x0804_8000, 52 + 32
	code := []byte{0x31, 0xdb, 0xb8, 1, 0, 0, 0, 0xcd, 0x80} // xor ebx, ebx; mov eax, 1; int 0x80
	elf := []byte("\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	le := binary.LittleEndian
	for _, x := range []uint16{2, 3} { // an executable, for the 386
		elf = le.AppendUint16(elf, x)
	}
	for _, x := range []uint32{1, base + headers, 52, 0, 0} { // version, entry, program headers
		elf = le.AppendUint32(elf, x)
	}
	for _, x := range []uint16{52, 32, 1, 0, 0, 0} {
		elf = le.AppendUint16(elf, x)
	}
	for _, x := range []uint32{1, 0, base, base, headers + uint32(len(code)), headers + uint32(len(code)), 5, 4096} {
		elf = le.AppendUint32(elf, x)
	}
	program := filepath.Join(t.TempDir(), "exits")
	if err := os.WriteFile(program, append(elf, code...), 0o755); err != nil {
		t.Fatal(err)
	}
	err := exec.Command(program).Run()
	if err != nil {
		t.Logf("this machine runs no 32-bit programs (%v): only one that looks like it is tried", err)
	}
	return err == nil
}

// TestNarrowOffsets: each offset has one number, small ones stay, and there is an end.
func TestNarrowOffsets(t *testing.T) {
	s := listing{asked: true, narrow: &narrowOffsets{known: make(map[uint64]uint64)}}
	offs := []uint64{1, math.MaxInt32, math.MaxInt32 + 1, math.MaxInt64, 1 << 40}
	var shown []uint64
	for range 2 {
		shown = shown[:0]
		for _, off := range offs {
			x := s.show(off, 0)
			shown = append(shown, x)
			if x > math.MaxInt32 || s.meant(x) != off {
				t.Errorf("%#x is shown as %#x, which means %#x", off, x, s.meant(x))
			}
		}
	}
	if s.narrow.offs[0] != math.MaxInt32 || len(s.narrow.offs) != 4 {
		t.Errorf("numbered: %#x", s.narrow.offs)
	}
	for i := range uint64(mostNarrow) {
		s.narrow.show(1<<50 + i)
	}
	if got := s.show(1<<60, 0); got != 1<<60 || len(s.narrow.offs) != mostNarrow || s.meant(1<<60) != 1<<60 {
		t.Errorf("after %d: %#x", len(s.narrow.offs), got)
	}
}

// TestIsNarrow: no 32-bit program are this process, an absent one, and the kernel's.
func TestIsNarrow(t *testing.T) {
	for _, pid := range []uint32{uint32(os.Getpid()), 0, 2, math.MaxInt32} {
		if isNarrow(pid) {
			t.Errorf("process %d is taken for a 32-bit program", pid)
		}
	}
	for name, v := range map[string][]byte{"nothing": nil, "short": {4, 0, 0, 0}, "zeros": make([]byte, 300)} {
		if isNarrowVector(v) {
			t.Errorf("%s is taken for a vector of 32 bits", name)
		}
	}
}
