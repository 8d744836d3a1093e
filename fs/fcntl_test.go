package fs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// setFlags is fcntl(2) with F_SETFL.
func setFlags(t *testing.T, f *os.File, flags int) {
	t.Helper()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFL, flags); err != nil {
		t.Fatal(err)
	}
}

// TestDirectByFcntl: O_DIRECT taken off and put on while a file is open, as QEMU and dd do for the
// last bytes of a copy. A caller with the file open buffered, or mapped, sees the bytes written
// each way, and its own writes are seen.
func TestDirectByFcntl(t *testing.T) {
	for _, name := range []string{"a.qcow2", "b.log"} {
		for what, first := range map[string]int{"taken off": unix.O_DIRECT, "put on": 0} {
			t.Run(what+" "+name, func(t *testing.T) {
				r := newRig(t, nil)
				r.write(name, strings.Repeat("x", 64<<10))
				r.idle()
				other := r.open(name, os.O_RDWR)
				page, err := unix.Mmap(int(other.Fd()), 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Munmap(page)
				f := r.open(name, os.O_RDWR|first)
				for i, flags := range []int{first, first ^ unix.O_DIRECT, first} {
					setFlags(t, f, flags)
					exchangeBytes(t, f, other, page, flags&unix.O_DIRECT != 0, byte('a'+i))
				}
			})
		}
	}
}

// exchangeBytes writes by f, by other and to page, which map one file, and reads by each. Requests
// to f suit its flags: whole sectors if direct, else parts.
func exchangeBytes(t *testing.T, f, other *os.File, page []byte, direct bool, mark byte) {
	t.Helper()
	size := 100
	if direct {
		size = 4096
	}
	p := aligned(4096)[:size]
	_, err := unix.Pread(int(f.Fd()), aligned(4096)[:100], 0)
	if direct {
		wantErrno(t, "a direct read of 100 bytes", err, unix.EINVAL)
	} else {
		wantErrno(t, "a read of 100 bytes", err, 0)
	}
	fill := func(c byte) []byte {
		copy(p, bytes.Repeat([]byte{c}, size))
		return p
	}
	for i, write := range []func() error{
		func() error { _, err := unix.Pwrite(int(f.Fd()), fill(mark), 4096); return err },
		func() error { _, err := unix.Pwrite(int(other.Fd()), fill(mark+32), 4096); return err },
		func() error { return copyMapped(page[4096:], fill(mark+64)) },
	} {
		wantErrno(t, "write", write(), 0)
		want := bytes.Repeat([]byte{mark + 32*byte(i)}, size)
		got := aligned(4096)[:size]
		for who, read := range map[string]func() error{
			"it":      func() error { _, err := unix.Pread(int(f.Fd()), got, 4096); return err },
			"another": func() error { _, err := unix.Pread(int(other.Fd()), got, 4096); return err },
			"a map":   func() error { return copyMapped(got, page[4096:]) },
		} {
			clear(got)
			if err := read(); err != nil || !bytes.Equal(got, want) {
				t.Errorf("direct %t, after write %d: %s reads %.10q, %v, want %.10q", direct, i, who, got, err, want)
			}
		}
	}
}

// TestAppendByFcntl: O_APPEND put on and taken off.
func TestAppendByFcntl(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{"a.qcow2", "b.log"} {
		r.write(name, "begun")
		f := r.open(name, os.O_RDWR)
		setFlags(t, f, unix.O_APPEND)
		_, err := unix.Write(int(f.Fd()), []byte(", ended"))
		wantErrno(t, "append", err, 0)
		setFlags(t, f, 0)
		_, err = unix.Pwrite(int(f.Fd()), []byte("B"), 0)
		wantErrno(t, "write at the front", err, 0)
		r.wantRead(name, "Begun, ended")
	}
}

// TestNoatimeByFcntl: with O_NOATIME put on, reads leave no access time; with the flag off again,
// reads do.
func TestNoatimeByFcntl(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{"a.qcow2", "b.log"} {
		r.write(name, strings.Repeat("x", 64<<10))
	}
	wantErrno(t, "mkdir", os.Mkdir(r.path("dir"), 0o755), 0)
	r.idle()
	readAgain := func(f *os.File) error { _, err := f.ReadAt(aligned(4096), 0); return err }
	listAgain := func(f *os.File) error {
		_, err := f.Seek(0, io.SeekStart)
		_, listed := f.Readdirnames(-1)
		return errors.Join(err, listed)
	}
	for _, tt := range []struct {
		name  string
		first int // flags of the open, which keep reads out of the kernel's page cache
		read  func(*os.File) error
	}{{"a.qcow2", unix.O_DIRECT, readAgain}, {"b.log", unix.O_DIRECT, readAgain}, {"dir", 0, listAgain}, {"dir", unix.O_NOATIME, listAgain}} {
		f := r.open(tt.name, tt.first)
		for _, flags := range []int{tt.first, unix.O_NOATIME | tt.first, tt.first &^ unix.O_NOATIME, unix.O_NOATIME, 0} {
			setFlags(t, f, flags)
			times := []unix.Timespec{past, {Nsec: unix.UTIME_OMIT}}
			wantErrno(t, "set times", unix.UtimesNanoAt(unix.AT_FDCWD, r.under(tt.name), times, 0), 0)
			wantErrno(t, "read", tt.read(f), 0)
			var st unix.Stat_t
			wantErrno(t, "stat", unix.Stat(r.under(tt.name), &st), 0)
			if got, want := st.Atim != past, flags&unix.O_NOATIME == 0; got != want {
				t.Errorf("%s with flags %#o: an access time is left: %t, want %t", tt.name, flags, got, want)
			}
		}
		f.Close()
	}
}
