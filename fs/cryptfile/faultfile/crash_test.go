package faultfile

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
)

// seen runs steps on a disk with a synced file "f" of 1024 bytes "o", and returns the contents
// shown by the states after all steps, by first byte of each sector; "-" is a hole.
func seen(t *testing.T, power bool, steps func(*Disk, *File)) map[string]bool {
	t.Helper()
	d := New()
	f := d.Create()
	put(t, f, 'o', 1024, 0, cryptfile.Volatile)
	if err := d.Link(f, "f"); err != nil {
		t.Fatal(err)
	}
	d.Record()
	steps(d, f)
	states := map[string]bool{}
	each := func(s State) {
		if s.Steps < d.Steps() {
			return
		}
		var shown bytes.Buffer
		now := s.Disk.Open("f")
		size, _ := now.Size()
		for at := int64(0); at < size; at += sector {
			var first [1]byte
			if now.ReadAt(first[:], at); first[0] == 0 {
				first[0] = '-'
			}
			shown.WriteByte(first[0])
		}
		states[shown.String()] = true
	}
	if power {
		d.PowerLosses(200, each)
	} else {
		d.Kills(each)
	}
	return states
}

func put(t *testing.T, f *File, c byte, n int, off int64, d cryptfile.Durability) {
	t.Helper()
	if _, err := f.WriteAt(bytes.Repeat([]byte{c}, n), off, d); err != nil {
		t.Fatal(err)
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		power bool
		steps func(*Disk, *File)
		want  []string
	}{
		{"a kill loses nothing", false, func(_ *Disk, f *File) {
			put(t, f, 'n', 1536, 0, cryptfile.Volatile)
		}, []string{"nnn"}},
		{"sectors and length are lost one by one", true, func(_ *Disk, f *File) {
			put(t, f, 'n', 1536, 0, cryptfile.Volatile)
		}, []string{"oo", "on", "no", "nn", "oo-", "on-", "no-", "nn-", "oon", "onn", "non", "nnn"}},
		{"synced is synced", true, func(_ *Disk, f *File) {
			put(t, f, 'n', 1536, 0, cryptfile.Volatile)
			f.Sync(cryptfile.Data)
		}, []string{"nnn"}},
		{"a synced write brings its length, not other writes", true, func(_ *Disk, f *File) {
			put(t, f, 'n', 512, 0, cryptfile.Volatile)
			put(t, f, 'n', 512, 1536, cryptfile.Data)
		}, []string{"oo-n", "no-n"}},
		{"lengths change in order, and the rest of a block may be zeroed first", true, func(_ *Disk, f *File) {
			f.Truncate(512)
			f.Truncate(2048)
		}, []string{"oo", "o-", "o", "o---"}},
		{"zeros make no length that the file had already", true, func(_ *Disk, f *File) {
			f.Truncate(2048)
			f.Fallocate(unix.FALLOC_FL_ZERO_RANGE, 512, 1024)
		}, []string{"oo", "o-", "oo--", "o---"}},
		{"and a length of their own in order", true, func(_ *Disk, f *File) {
			f.Truncate(1536)
			f.Fallocate(unix.FALLOC_FL_ZERO_RANGE, 512, 1536)
		}, []string{"oo", "o-", "oo-", "o--", "oo--", "o---"}},
		{"names wait for the directory", true, func(d *Disk, _ *File) {
			f := d.Create()
			put(t, f, 'n', 512, 0, cryptfile.Volatile)
			f.Sync(cryptfile.Data)
			d.Link(f, "f")
		}, []string{"oo", "n"}},
		{"and are there after its sync", true, func(d *Disk, _ *File) {
			f := d.Create()
			put(t, f, 'n', 512, 0, cryptfile.Volatile)
			d.Link(f, "f")
			Dir{d}.Sync()
		}, []string{"", "-", "n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := seen(t, c.power, c.steps)
			for _, w := range c.want {
				if !got[w] {
					t.Errorf("no state shows %q", w)
				}
				delete(got, w)
			}
			for g := range got {
				t.Errorf("a state shows %q", g)
			}
		})
	}
}
