package datastore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

func TestMemoryBad(t *testing.T) {
	for _, c := range []struct{ name, text, words string }{
		{"no TOML", "[[datastore]\n", "datastores.toml"},
		{"unknown key", "[[datastore]]\npath = \"/x\"\nnew = 1\n", `"datastore.new"`},
		{"wrong type", "[[datastore]]\nserial = \"one\"\n", "serial"},
		{"negative serial", "[[datastore]]\nserial = -1\n", "serial"},
		{"too long", strings.Repeat("# 3456789012345\n", maxMemory/16+1), "bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			path := filepath.Join(s.host.state, memoryName)
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			// A host unable to read its memory has no ground for trust.
			err := s.mount(s.host, false)
			if err == nil || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one about %q", err, c.words)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != c.text {
				t.Errorf("memory rewritten (%v)", err)
			}
		})
	}
}

func TestMemoryBadCheck(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(s.host.state, memoryName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	k := s.kek("k1").CheckValue()
	edited := strings.Replace(string(b), fmt.Sprintf("%x", k), "beef", 1)
	if edited == string(b) {
		t.Fatalf("no check value in\n%s", b)
	}
	if err := os.WriteFile(path, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.mount(s.host, false); err == nil || !strings.Contains(err.Error(), "check") {
		t.Errorf("error %v", err)
	}
}

// Processes of many hosts at once: no record is lost.
func TestMemoryConcurrent(t *testing.T) {
	host := newHost(t)
	accept := func(*record) error { return nil }
	const n = 20
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			p := location{path: fmt.Sprintf("/d%d", i), fs: "fsid:1", inode: fmt.Sprint(i)}
			s := &layout.Settings{ID: layout.FileID{byte(i)}, Provider: "corp", KEK: "k", Serial: 1}
			for s.Serial = 1; s.Serial <= 3; s.Serial++ {
				// Another Host stands for another process: nothing in memory is shared.
				if err := NewHost(host.state).remember(newRecord(p, s, [16]byte{}), p, s.ID, accept); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range n {
		r, err := host.recall(location{path: fmt.Sprintf("/d%d", i)}, layout.FileID{})
		if err != nil || r == nil || r.Serial != 3 {
			t.Errorf("datastore %d: %+v, %v", i, r, err)
		}
	}
}

// A path of any bytes is remembered, apart from all others, and does not disturb the others.
func TestMemoryPaths(t *testing.T) {
	host := newHost(t)
	fd, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	at := func(b byte) location {
		p, err := locationOf("/d"+string([]byte{b}), fd)
		if err != nil {
			t.Fatal(err)
		}
		p.inode = fmt.Sprint(b)
		return p
	}
	for b := byte(255); b > 0; b-- {
		s := &layout.Settings{ID: layout.FileID{b}, Provider: "corp", KEK: "k", Serial: uint64(b)}
		if err := host.remember(newRecord(at(b), s, [16]byte{}), at(b), s.ID, func(*record) error { return nil }); err != nil {
			t.Fatalf("byte %#x: %v", b, err)
		}
	}
	for b := byte(255); b > 0; b-- {
		if r, err := host.recall(at(b), layout.FileID{b}); err != nil || r == nil || r.Serial != uint64(b) {
			t.Errorf("byte %#x: %+v, %v", b, r, err)
		}
	}
}

// An unchanged record is not written again: a read-only state directory does not keep a known
// datastore from being mounted.
func TestMemoryUnchanged(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(s.host.state, memoryName)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.mount(s.host, false); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("memory rewritten (%v)", err)
	}
}

func TestFind(t *testing.T) {
	id, other := layout.FileID{1}, layout.FileID{2}
	all := []record{
		{Path: "/a", FS: "f", Inode: "1", ID: id.String()},
		{Path: "/b", FS: "f", Inode: "2", ID: id.String()},
	}
	for _, c := range []struct {
		name string
		at   location
		id   layout.FileID
		want int // index, -1 for none
	}{
		{"same place", location{"/b", "f", "2"}, id, 1},
		{"path alone", location{"/b", "g", "9"}, other, 1},
		{"path before directory", location{"/b", "f", "1"}, id, 1},
		{"moved", location{"/c", "f", "1"}, id, 0},
		{"inode number used again", location{"/c", "f", "1"}, other, -1},
		{"copy", location{"/c", "f", "3"}, id, -1},
		{"same inode elsewhere", location{"/c", "g", "1"}, id, -1},
	} {
		got := -1
		if r := find(all, c.at, c.id); r != nil {
			got = slices.Index(all, *r)
		}
		if got != c.want {
			t.Errorf("%s: record %d, want %d", c.name, got, c.want)
		}
	}
}

// Whatever parses is written back as the same records.
func FuzzMemory(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("[[datastore]]\npath = \"/a\\u0000\"\nserial = 9223372036854775807\n"))
	b, err := formatMemory([]record{{Path: "/x\n\"", FS: "fsid:1", Inode: "2", ID: "i", Provider: "é", KEK: "k", Check: "00", Serial: 7}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseMemory(b)
		if err != nil {
			return
		}
		text, err := formatMemory(all)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseMemory(text)
		if err != nil || !slices.Equal(all, again) {
			t.Errorf("%+v became %+v, %v", all, again, err)
		}
	})
}
