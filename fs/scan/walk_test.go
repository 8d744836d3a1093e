package scan

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// newer is a header slot of a version that this program does not know.
func newer() []byte {
	slot := headerOf("k1").AppendSlot(nil)
	slot[8] = 2
	at := len(slot) - sha256.Size
	sum := sha256.Sum256(slot[:at])
	copy(slot[at:], sum[:])
	return slot
}

// TestNothing: a datastore in which all is as it should be.
func TestNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, layout.Settings{Clear: []string{"*.iso"}})
	s.text("web01/vmware.log", "log")
	s.text("web01/a.iso", "image")
	s.text("web01/a.vmdk", "# Disk DescriptorFile\nversion=1\n")
	s.text("web01/empty-flat.vmdk", "")
	s.encrypted("web01/a-flat.vmdk", headerOf("k1"))
	s.encrypted("web01/b-flat.vmdk", headerOf("old", "k1"))
	s.must(os.Symlink("a.iso", filepath.Join(s.Store.Path(), "link-flat.vmdk")))
	r := s.finds()
	if !r.Verified || !r.Complete || r.Files != 6 || len(r.Notes) > 0 {
		t.Errorf("%+v", r)
	}
}

// TestFiles: cleartext, damage, leftovers and names of the program's.
func TestFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t, layout.Settings{Clear: []string{"*.iso"}})
	slot, next := headerOf("k1").AppendSlot(nil), newer()
	s.text("a-flat.vmdk", "GUEST")
	s.plant("wiped-flat.vmdk", layout.DataOffset, part{layout.SlotBOffset, slot})
	s.plant("wiped.iso", layout.DataOffset, part{layout.SlotBOffset, slot})
	s.text("cut-flat.vmdk", layout.Magic+"GUEST")
	s.plant("torn-flat.vmdk", layout.DataOffset, part{0, []byte(layout.Magic)})
	s.plant("newer-flat.vmdk", layout.DataOffset, part{0, next}, part{layout.SlotBOffset, next})
	s.text("vm/.a-flat.vmdk.Ab3dE6", "GUEST")
	s.text("vm/vmware.log~", "log")
	s.encrypted("vm/.b-flat.vmdk.Ab3dE6", headerOf("k1"))
	s.text("vm/4913", "")
	s.text(".vmcryptfs-nobodys", "GUEST")
	s.text("vm/.vmcryptfs/inner", "GUEST")
	r := s.finds("cleartext a-flat.vmdk clear", "damaged wiped-flat.vmdk", "damaged wiped.iso", "damaged cut-flat.vmdk", "damaged torn-flat.vmdk",
		"version newer-flat.vmdk", "leftover vm/.a-flat.vmdk.Ab3dE6 clear", "leftover vm/vmware.log~ clear", "leftover vm/.b-flat.vmdk.Ab3dE6",
		"leftover vm/4913", "reserved .vmcryptfs-nobodys clear", "reserved vm/.vmcryptfs")
	if r.Complete {
		t.Error("a directory that was not entered counts as read")
	}
}

// TestTemporaries: of this host, of another, of a tag, and one that goes during the scan.
func TestTemporaries(t *testing.T) {
	t.Parallel()
	s := newSite(t, layout.Settings{})
	rest := otherHost + "-" + thisHost
	ours, theirs := layout.TemporaryPrefix(thisHost)+rest, layout.TemporaryPrefix(otherHost)+rest
	s.text(ours, "GUEST")
	s.encrypted("vm/"+theirs, headerOf("k1"))
	s.text("vm/.vmcryptfs.place.new", "x")
	r := s.finds("temporary "+ours+" clear", "temporary vm/"+theirs, "temporary vm/.vmcryptfs.place.new clear")
	for _, f := range r.Findings {
		host := "host " + otherHost
		if f.Path == ours {
			host = "this host"
		}
		if !strings.Contains(f.Why, host) && !strings.HasSuffix(f.Path, ".new") {
			t.Errorf("%s: %s", f.Path, f.Why)
		}
	}
	s.Again = func() (*layout.Settings, error) { // called after the walk
		s.must(os.Remove(filepath.Join(s.Store.Path(), ours)))
		return s.Store.Settings(), nil
	}
	s.finds("temporary vm/"+theirs, "temporary vm/.vmcryptfs.place.new clear")
}

// TestUnproven: without a key the stricter one of built-in rules and settings decides.
func TestUnproven(t *testing.T) {
	t.Parallel()
	s := newSite(t, layout.Settings{Clear: []string{"*-flat.vmdk"}, Encrypt: []string{"*.log"}})
	s.text("a-flat.vmdk", "GUEST")
	s.text("a.log", "GUEST")
	s.finds("cleartext a.log clear")
	s = newSite(t, layout.Settings{Clear: []string{"*-flat.vmdk"}, Encrypt: []string{"*.log"}})
	s.text("a-flat.vmdk", "GUEST")
	s.text("a.log", "GUEST")
	s.encrypted("b-flat.vmdk", headerOf("nobodys"))
	s.Keys = nil
	r := s.finds("cleartext a-flat.vmdk clear", "cleartext a.log clear")
	if r.Verified || !r.Complete || len(r.Notes) != 2 || !strings.Contains(r.Notes[0], "unproven") {
		t.Errorf("%+v", r)
	}
	for i, want := range []string{"say clear", "are unproven"} {
		if !strings.Contains(r.Findings[i].Why, want) {
			t.Errorf("%s: %s, want %q", r.Findings[i].Path, r.Findings[i].Why, want)
		}
	}
}

// TestForged: settings that were changed without the key are a finding, and are not believed.
func TestForged(t *testing.T) {
	t.Parallel()
	s := newSite(t, layout.Settings{Clear: []string{"*.iso"}})
	at := filepath.Join(s.Store.Path(), ".vmcryptfs/datastore.toml")
	text, err := os.ReadFile(at)
	s.must(err)
	s.must(os.WriteFile(at, []byte(strings.Replace(string(text), "*.iso", "*.img", 1)), 0o644))
	s.reopen()
	s.text("a.img", "GUEST")
	if r := s.finds("settings .vmcryptfs/datastore.toml", "cleartext a.img clear"); r.Verified {
		t.Error("forged settings are verified")
	}
}

// TestBounds: what is not listed is counted; a path that is not UTF-8 keeps its bytes.
func TestBounds(t *testing.T) {
	t.Parallel()
	r := &Report{Kinds: map[string]int64{}}
	for i := range mostFindings + 5 {
		r.add(Finding{Kind: Cleartext, Path: fmt.Sprintf("\xff%d", i), Clear: true, Bytes: 2})
	}
	if len(r.Findings) != mostFindings || r.Total() != mostFindings+5 || r.Clear != r.Total() || r.Bytes != 2*r.Total() {
		t.Errorf("%d listed, %d in all, %d in clear", len(r.Findings), r.Total(), r.Clear)
	}
	var f Finding
	text, err := json.Marshal(r.Findings[0])
	if err := errors.Join(err, json.Unmarshal(text, &f)); err != nil || string(f.Raw) != "\xff0" {
		t.Errorf("%s, %v", text, err)
	}
	l := newLater(&layout.Settings{})
	for range mostLater + 5 {
		l.temporary(&sight{}, "")
	}
	if len(l.temps) != mostLater || l.dropped != 5 {
		t.Errorf("%d kept, %d dropped", len(l.temps), l.dropped)
	}
}

// TestHostile: names that are no text, and what is no file, are met and told; a chain of directories
// without end is not walked without end.
func TestHostile(t *testing.T) {
	t.Parallel()
	s := newSite(t, layout.Settings{})
	long := strings.Repeat("x", 255-len("-flat.vmdk")) + "-flat.vmdk"
	s.text("\xff-flat.vmdk", "GUEST")
	s.text("a\n\x1b[31m-flat.vmdk", "GUEST")
	s.text(long, "GUEST")
	s.must(unix.Mkfifo(filepath.Join(s.Store.Path(), "pipe-flat.vmdk"), 0o644))
	s.must(unix.Mkfifo(filepath.Join(s.Store.Path(), ".vmcryptfs.place"), 0o644))
	s.must(os.Symlink(".", filepath.Join(s.Store.Path(), "loop")))
	s.must(os.Symlink("/etc/passwd", filepath.Join(s.Store.Path(), layout.MoveName(layout.FileID{1}))))
	r := s.finds("cleartext \xff-flat.vmdk clear", "cleartext a\n\x1b[31m-flat.vmdk clear", "cleartext "+long+" clear",
		"reserved .vmcryptfs.place", "reserved "+layout.MoveName(layout.FileID{1}))
	if raw := r.Findings[len(r.Findings)-1].Raw; string(raw) != "\xff-flat.vmdk" {
		t.Errorf("raw is %q", raw)
	}
	s.deep(unix.PathMax/200 + 2)
	if r, _ := s.scan(); r.Complete || r.Kinds[Unreadable] != 1 {
		t.Errorf("%+v", r.Kinds)
	}
}

// deep makes directories in each other, so that no path leads to the last one.
func (s *site) deep(n int) {
	dir, err := unix.Open(s.Store.Path(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	s.must(err)
	for range n {
		name := strings.Repeat("d", 200)
		s.must(unix.Mkdirat(dir, name, 0o755))
		below, err := unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		s.must(errors.Join(err, unix.Close(dir)))
		dir = below
	}
	s.must(unix.Close(dir))
}

// TestInterrupted: what was found so far is told, and is not complete.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	s := newSite(t, layout.Settings{})
	s.text("a-flat.vmdk", "GUEST")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := Run(ctx, s.Config)
	if !errors.Is(err, context.Canceled) || r == nil || r.Complete {
		t.Errorf("%+v, %v", r, err)
	}
}
