package content

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

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
