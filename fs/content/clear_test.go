package content

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// TestMayMakeMagic: a write that may complete the magic of an encrypted file is checked against the
// bytes there; where the bytes cannot be read, the write is refused.
func TestMayMakeMagic(t *testing.T) {
	for _, tt := range []struct {
		p    string
		off  int64
		want bool
	}{
		{layout.Magic, 0, true}, {layout.Magic[:1], 0, true}, {layout.Magic[6:] + "x", 6, true}, {layout.Magic[7:] + "\n", 7, true},
		{"x", 0, false}, {layout.Magic[:7] + "x", 0, false}, {"x", 3, false}, {layout.Magic, 8, false}, {"", 0, false},
	} {
		if got := mayMakeMagic([]byte(tt.p), tt.off); got != tt.want {
			t.Errorf("%q at %d: %v, want %v", tt.p, tt.off, got, tt.want)
		}
	}
	fd, err := unix.Open(filepath.Join(t.TempDir(), "x.log"), unix.O_WRONLY|unix.O_CREAT, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	c := &clearFile{OSFile: cryptfile.NewOSFile(fd)}
	defer c.Close()
	if _, err := c.WriteAt([]byte("begun"), 0, cryptfile.Volatile); err != nil {
		t.Errorf("write: %v", err)
	}
	if _, err := c.WriteAt([]byte(layout.Magic[:1]), 0, cryptfile.Volatile); err != unix.EPERM {
		t.Errorf("write what may be the magic's: %v", err)
	}
}

// TestNoMagic: bytes that would complete the magic are refused, in whatever pieces and order they
// come; others of the same place are written.
func TestNoMagic(t *testing.T) {
	m := layout.Magic
	for _, tt := range []struct {
		before string // in the file
		p      string
		off    int64
		want   error
	}{
		{"", m, 0, unix.EPERM},
		{"", m + "more", 0, unix.EPERM},
		{m[:3], m[3:], 3, unix.EPERM},
		{"\x00" + m[1:], m[:1], 0, unix.EPERM},
		{m[:3] + "\x00" + m[4:] + "more", m[3:4], 3, unix.EPERM},
		{m[:7], "x", 7, nil},
		{"", m[3:], 3, nil},
		{"x" + m[1:7], m[7:], 7, nil},
		{"", "x" + m, 0, nil},
		{"12345678", m, 8, nil},
	} {
		c := &clearFile{OSFile: osFile(t, tt.before)}
		if _, err := c.WriteAt([]byte(tt.p), tt.off, cryptfile.Volatile); err != tt.want {
			t.Errorf("%q at %d of %q: %v, want %v", tt.p, tt.off, tt.before, err, tt.want)
		}
		got := make([]byte, 100)
		n, err := c.PeekAt(got, 0)
		if err != nil || layout.HasMagic(got[:n]) || tt.want != nil && string(got[:n]) != tt.before {
			t.Errorf("%q at %d of %q: the file holds %q, %v", tt.p, tt.off, tt.before, got[:n], err)
		}
		c.Close()
	}
}

// TestClearExtents: what makes holes and zeros, or reserves room, of a file in clear. The size
// stays, or grows to the end of the range.
func TestClearExtents(t *testing.T) {
	const page = 4096
	for _, tt := range []struct {
		what     string
		do       func(c Content, keepSize bool) error
		keepSize bool
		size     int64
		zeros    bool // in the second page
	}{
		{"punch", func(c Content, _ bool) error { return c.Punch(page, 3*page) }, true, 2 * page, true},
		{"zero", func(c Content, keep bool) error { return c.Zero(page, 3*page, keep) }, true, 2 * page, true},
		{"zero and grow", func(c Content, keep bool) error { return c.Zero(page, 3*page, keep) }, false, 4 * page, true},
		{"allocate", func(c Content, keep bool) error { return c.Allocate(page, 3*page, keep) }, true, 2 * page, false},
		{"allocate and grow", func(c Content, keep bool) error { return c.Allocate(page, 3*page, keep) }, false, 4 * page, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			f := OpenClear(osFile(t, strings.Repeat("x", 2*page)), backing.Clear, both)
			defer f.Close()
			err := tt.do(f, tt.keepSize)
			if err == unix.EOPNOTSUPP {
				t.Skip("not on this file system")
			}
			if err != nil {
				t.Fatal(err)
			}
			if size, err := f.Size(); size != tt.size || err != nil {
				t.Errorf("size %d, %v; want %d", size, err, tt.size)
			}
			want := strings.Repeat("x", page) + strings.Repeat("x", page)
			if tt.zeros {
				want = strings.Repeat("x", page) + strings.Repeat("\x00", page)
			}
			got := make([]byte, 2*page)
			if _, err := f.ReadAt(got, 0); err != nil || string(got) != want {
				t.Errorf("other bytes, %v", err)
			}
			var st unix.Stat_t
			if err := unix.Fstat(f.carrier.Fd(), &st); err != nil {
				t.Fatal(err)
			}
			if room := st.Blocks * 512; tt.what == "punch" && room >= 2*page || !tt.zeros && room < 4*page {
				t.Errorf("%d bytes are reserved", room)
			}
		})
	}
}
