package fs

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// adopting is a place that adopts.
func adopting(n byte, path, policy string) layout.Place {
	p := at(n, path, policy)
	p.Adopt = true
	return p
}

// TestAdopt: cleartext is served, and written in clear, below a place that adopts.
func TestAdopt(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{adopting(1, "a", "gold"), at(2, "a/own", "gold"), adopting(3, "c", "clear")})
	for _, dir := range []string{"a/deep", "c/below"} {
		r.mkdir(dir)
	}
	if n := r.fs.Adopting(); n != 2 {
		t.Errorf("%d places adopt", n)
	}
	for name, errno := range map[string]unix.Errno{
		"x.img":         unix.EACCES,
		"a/x.img":       0,
		"a/deep/x.img":  0,
		"a/x.vmdk":      0, // of class inspect, and no descriptor
		"a/own/x.img":   unix.EACCES,
		"c/core.1":      0,
		"c/below/x.img": unix.EACCES,
	} {
		r.plant(name, "content")
		f, err := os.OpenFile(r.path(name), os.O_RDWR, 0)
		wantErrno(t, name, err, errno)
		if err != nil {
			continue
		}
		if _, err := f.WriteAt([]byte("CON"), 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
		r.wantForm(name, "clear")
		r.wantRead(name, "CONtent")
	}
	if got := r.made("a/new.img"); got != "kek-2" {
		t.Errorf("a new file: %s", got)
	}
	r.edit(func(s *layout.Settings) { s.Places[0].Adopt = false })
	r.idle()
	_, err := os.Open(r.path("a/x.img"))
	wantErrno(t, "adopted no more", err, unix.EACCES)
}

// TestAdoptNames: each name of the cleartext must be where it is adopted.
func TestAdoptNames(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{adopting(1, "a", "gold")})
	r.plant("a/x.img", "content")
	r.wantRead("a/x.img", "content")
	wantErrno(t, "link out", os.Link(r.path("a/x.img"), r.path("x.img")), unix.EXDEV)
	wantErrno(t, "link within", os.Link(r.path("a/x.img"), r.path("a/y.img")), 0)
	r.wantRead("a/y.img", "content")
	if err := os.Link(r.under("a/x.img"), r.under("x.img")); err != nil {
		t.Fatal(err)
	}
	_, err := os.Open(r.path("x.img"))
	wantErrno(t, "another name, by other hands", err, unix.EACCES)
}

// TestAdoptRename: adopted cleartext stays so by a rename below the place, and is encrypted or
// copied by one that leaves.
func TestAdoptRename(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{adopting(1, "a", "gold"), at(2, "b", "vm")}[:1])
	for _, dir := range []string{"a/deep", "a/dir"} {
		r.mkdir(dir)
	}
	r.plant("a/x.img", "content")
	r.plant("a/dir/y.img", "content")
	r.plant("a/big.img", string(make([]byte, maxConvert+1)))
	r.write("a/enc.img", "content")
	wantErrno(t, "within", r.rename("a/x.img", "a/deep/x.img"), 0)
	r.wantForm("a/deep/x.img", "clear")
	wantErrno(t, "out", r.rename("a/deep/x.img", "x.img"), 0)
	r.wantKEK("x.img", "kek-1")
	r.wantRead("x.img", "content")
	wantErrno(t, "out, long", r.rename("a/big.img", "big.img"), unix.EXDEV)
	wantErrno(t, "out, encrypted", r.rename("a/enc.img", "enc.img"), 0)
	r.wantKEK("enc.img", "kek-2")
	wantErrno(t, "a directory out", r.rename("a/dir", "dir"), unix.EXDEV)
	wantErrno(t, "a directory within", r.rename("a/dir", "a/deep/dir"), 0)
	r.wantRead("a/deep/dir/y.img", "content")
	wantErrno(t, "the place itself", r.rename("a", "moved"), 0)
	r.wantRead("moved/deep/dir/y.img", "content")
	r.plant("moved/z.img", "content")
	wantErrno(t, "to a name that is clear", r.rename("moved/z.img", "z.log"), 0)
	r.wantRead("z.log", "content")
}

// TestAdoptOpen: handles go on when a rename out of the place encrypts their file.
func TestAdoptOpen(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{adopting(1, "a", "gold")})
	r.plant("a/x.img", "content")
	open := r.open("a/x.img", os.O_RDWR)
	if _, err := open.WriteAt([]byte("C"), 0); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "rename", r.rename("a/x.img", "x.img"), 0)
	if _, err := open.WriteAt([]byte("more"), 7); err != nil {
		t.Error(err)
	}
	r.wantForm("x.img", "encrypted")
	r.wantRead("x.img", "Contentmore")
}

// TestAdoptSlotB: adoption serves no file with a whole second header.
func TestAdoptSlotB(t *testing.T) {
	r := newPlacesRig(t, []layout.Place{adopting(1, "a", "gold")})
	r.write("a/x.img", "content")
	r.idle()
	f, err := os.OpenFile(r.under("a/x.img"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 8), 0); err != nil {
		t.Fatal(err)
	}
	_, err = os.Open(r.path("a/x.img"))
	wantErrno(t, "open", err, unix.EACCES)
}
