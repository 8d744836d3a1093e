package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// movable are names for files to be moved, by the kind of the move.
var movable = map[string]layout.MoveKind{"a.img": layout.MoveDeep, "b.log": layout.MoveEncrypt, "c.img": layout.MoveDecrypt}

// movingText is the content of the files that halfway makes.
func movingText() []byte {
	return append(bytes.Repeat([]byte("0123456789abcde\n"), 200_000), "tail"...)
}

// halfway makes a file, and moves a part of it.
func (r *rig) halfway(name string, kind layout.MoveKind) (*Mover, layout.FileID, []byte) {
	r.t.Helper()
	want := movingText()
	r.write(name, string(want))
	if kind == layout.MoveDecrypt {
		r.rule(nil, []string{"c*.img"})
	}
	id := r.listed()
	m := r.mover(name)
	r.must(m.Begin(r.t.Context(), kind, id))
	enough := errors.New("enough")
	done, err := m.Pair().Step(r.t.Context(), func(context.Context, int64) error { return enough })
	if done || !errors.Is(err, enough) || m.Pair().Watermark() == 0 {
		r.t.Fatalf("a step that is cut short: %t, %v, W is %d", done, err, m.Pair().Watermark())
	}
	return m, id, want
}

// inBacking are the names in a directory of BACKING, but for the program's directory.
func (r *rig) inBacking(dir string) []string {
	r.t.Helper()
	list, err := os.ReadDir(r.under(dir))
	r.must(err)
	names := []string{}
	for _, e := range list {
		if e.Name() != layout.ReservedPrefix {
			names = append(names, e.Name())
		}
	}
	return names
}

func (r *rig) wantIn(dir string, want ...string) {
	r.t.Helper()
	slices.Sort(want)
	if got := r.inBacking(dir); !slices.Equal(got, want) {
		r.t.Errorf("%q holds %q in BACKING, want %q", dir, got, want)
	}
}

// finish takes a move to its end.
func (r *rig) finish(m *Mover) {
	r.t.Helper()
	r.steps(m)
	r.must(m.End(r.t.Context()))
	r.must(m.Close())
}

// TestRenameMoving renames a moving file in its directory, to another one with its companion, and with
// a directory, open and not; the move goes on.
func TestRenameMoving(t *testing.T) {
	for name, kind := range movable {
		for _, open := range []bool{true, false} {
			t.Run(fmt.Sprint(kind, " open ", open), func(t *testing.T) {
				r := newRig(t, nil)
				r.mkdir("d")
				m, id, want := r.halfway(name, kind)
				close := func() {
					if !open {
						r.must(m.Close())
						r.idle()
					}
				}
				close()
				other := name[:1] + "2" + name[1:]
				r.must(r.rename(name, other))
				r.wantIn("", "d", other, layout.MoveName(id))
				r.wantRead(other, string(want))
				r.must(r.rename(other, "d/"+name))
				r.wantIn("", "d")
				r.wantIn("d", name, layout.MoveName(id))
				r.wantRead("d/"+name, string(want))
				r.must(r.rename("d", "e"))
				r.wantRead("e/"+name, string(want))
				if !open {
					r.remount()
					r.wantRead("e/"+name, string(want))
					m = r.mover("e/" + name)
				}
				r.finish(m)
				r.wantRead("e/"+name, string(want))
				r.wantIn("e", name)
			})
		}
	}
}

// TestRenameMovingRefused: what would part the halves is for the caller to copy.
func TestRenameMovingRefused(t *testing.T) {
	for name, kind := range movable {
		t.Run(kind.String(), func(t *testing.T) {
			r := newRig(t, nil)
			m, id, want := r.halfway(name, kind)
			r.write("other"+name, "other")
			across := map[layout.MoveKind]string{layout.MoveDeep: "x.log", layout.MoveEncrypt: "x.img", layout.MoveDecrypt: "x.img"}[kind]
			for _, open := range []bool{true, false} {
				wantErrno(t, "another class", r.rename(name, across), unix.EXDEV)
				wantErrno(t, "exchange", r.exchange(name, "other"+name), unix.EXDEV)
				wantErrno(t, "exchange", r.exchange("other"+name, name), unix.EXDEV)
				wantErrno(t, "link", os.Link(r.path(name), r.path("link"+name)), unix.EXDEV)
				r.wantRead(name, string(want))
				r.wantIn("", name, "other"+name, layout.MoveName(id))
				if open {
					r.must(m.Close())
					r.idle()
				}
			}
			m = r.mover(name)
			r.finish(m)
		})
	}
}

// TestRemoveMoving: the companion goes with the file, the move is over, and who has the file open goes
// on.
func TestRemoveMoving(t *testing.T) {
	for name, kind := range movable {
		for what, remove := range map[string]func(*rig) error{
			"unlink":            func(r *rig) error { return os.Remove(r.path(name)) },
			"rename over":       func(r *rig) error { return r.rename("other"+name, name) },
			"rename over, else": func(r *rig) error { return r.rename("d/other"+name, name) },
			"another class over": func(r *rig) error {
				return r.rename(map[bool]string{true: "x.img", false: "x.log"}[kind == layout.MoveEncrypt], name)
			},
		} {
			t.Run(kind.String()+" "+what, func(t *testing.T) {
				r := newRig(t, nil)
				r.mkdir("d")
				m, id, want := r.halfway(name, kind)
				for _, other := range []string{"other" + name, "d/other" + name, "x.img", "x.log"} {
					r.write(other, "other")
				}
				f := r.open(name, os.O_RDWR)
				r.must(remove(r))
				if got := r.inBacking(""); slices.Contains(got, layout.MoveName(id)) || slices.Contains(got, layout.GoneName(id)) {
					t.Errorf("left: %q", got)
				}
				if _, err := f.WriteAt([]byte("AFTER"), 1_000); err != nil {
					t.Errorf("write to the removed file: %v", err)
				}
				copy(want[1_000:], "AFTER")
				got := make([]byte, len(want))
				if n, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
					t.Errorf("the removed file holds %d bytes, %v", n, err)
				}
				if _, err := m.Pair().Step(t.Context(), nil); !errors.Is(err, ErrGone) {
					t.Errorf("step: %v", err)
				}
				if err := errors.Join(m.Pair().Turn(true), m.Pair().Return()); !errors.Is(err, ErrGone) {
					t.Errorf("turn and return: %v", err)
				}
				if err := m.End(t.Context()); !errors.Is(err, ErrGone) {
					t.Errorf("end: %v", err)
				}
				if what != "unlink" {
					r.wantRead(name, "other")
				}
				r.must(m.Close())
				r.must(f.Close())
				r.idle()
			})
		}
	}
}

// TestRemoveMovingClosed: also where nobody has the file open, and after that the directory is empty.
func TestRemoveMovingClosed(t *testing.T) {
	for name, kind := range movable {
		t.Run(kind.String(), func(t *testing.T) {
			r := newRig(t, nil)
			r.mkdir("d")
			m, _, _ := r.halfway("d/"+name, kind)
			r.must(m.Close())
			r.remount()
			r.must(os.Remove(r.path("d/" + name)))
			r.wantIn("d")
			r.must(os.Remove(r.path("d")))
		})
	}
}

// TestRemoveCopyOfHalf: the companion stays where somebody has copied the carrier in BACKING.
func TestRemoveCopyOfHalf(t *testing.T) {
	r := newRig(t, nil)
	m, id, want := r.halfway("a.img", layout.MoveDeep)
	r.must(m.Close())
	r.idle()
	b, err := os.ReadFile(r.under("a.img"))
	r.must(err)
	r.plant("copy.img", string(b))
	r.must(os.Remove(r.path("copy.img")))
	r.wantIn("", "a.img", layout.MoveName(id))
	r.wantRead("a.img", string(want))
}

// doFirst does the first n of steps.
func doFirst(t *testing.T, n int, steps []func() error) {
	t.Helper()
	for _, step := range steps[:n] {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRenameMovingCutOff: a crash between any two steps of a rename to another directory.
func TestRenameMovingCutOff(t *testing.T) {
	for name, kind := range movable {
		for done := range 4 {
			t.Run(fmt.Sprint(kind, " after ", done), func(t *testing.T) {
				r := newRig(t, nil)
				r.mkdir("d")
				m, id, want := r.halfway(name, kind)
				r.must(m.Close())
				r.unmount()
				half := layout.MoveName(id)
				doFirst(t, done, []func() error{
					func() error { return os.Link(r.under(half), r.under("d/"+half)) },
					func() error { return os.Rename(r.under(name), r.under("d/"+name)) },
					func() error { return os.Remove(r.under(half)) },
				})
				r.mount()
				at := name
				if done >= 2 {
					at = "d/" + name
				}
				r.wantRead(at, string(want)) // at once
				r.wantFound(at, id)
				if done < 2 {
					r.wantIn("", "d", name, half)
					r.wantIn("d")
				} else {
					r.wantIn("", "d")
					r.wantIn("d", name, half)
				}
				r.wantRead(at, string(want))
				r.finish(r.mover(at))
				r.wantRead(at, string(want))
			})
		}
	}
}

// wantFound calls FindMoves, which finds one move, or none, and no stray.
func (r *rig) wantFound(at string, id layout.FileID) {
	r.t.Helper()
	found, strays, err := r.fs.FindMoves(r.t.Context())
	want := []FoundMove{{id, at}}
	if at == "" {
		want = nil
	}
	if err != nil || !slices.Equal(found, want) || len(strays) > 0 {
		r.t.Errorf("found %v, strays %q, %v; want %v", found, strays, err, want)
	}
}

// TestRemoveMovingCutOff: a crash between any two steps of a removal.
func TestRemoveMovingCutOff(t *testing.T) {
	for name, kind := range movable {
		for done := range 4 {
			t.Run(fmt.Sprint(kind, " after ", done), func(t *testing.T) {
				r := newRig(t, nil)
				r.mkdir("d")
				m, id, want := r.halfway("d/"+name, kind)
				r.must(m.Close())
				r.unmount()
				half, gone := layout.MoveName(id), layout.GoneName(id)
				doFirst(t, done, []func() error{
					func() error { return os.Rename(r.under("d/"+half), r.under("d/"+gone)) },
					func() error { return os.Remove(r.under("d/" + name)) },
					func() error { return os.Remove(r.under("d/" + gone)) },
				})
				r.mount()
				if done >= 2 {
					r.wantFound("", id)
					r.wantIn("d")
					return
				}
				r.wantFound("d/"+name, id)
				r.wantIn("d", name, half)
				r.wantRead("d/"+name, string(want))
			})
		}
	}
}

// TestRemoveDirectoryOfHalf: a directory whose last file was removed goes, also after a crash; a
// companion that may belong to a file keeps it.
func TestRemoveDirectoryOfHalf(t *testing.T) {
	r := newRig(t, nil)
	id := r.listed()
	for _, d := range []string{"gone", "linked", "stray"} {
		r.mkdir(d)
	}
	r.plant("gone/"+layout.GoneName(id), "half")
	r.plant("half", "half")
	r.must(os.Link(r.under("half"), r.under("linked/"+layout.MoveName(id))))
	r.plant("stray/"+layout.MoveName(id), "half")
	r.must(os.Remove(r.path("gone")))
	r.must(os.Remove(r.path("linked")))
	wantErrno(t, "rmdir with a stray", os.Remove(r.path("stray")), unix.ENOTEMPTY)
	r.wantIn("stray", layout.MoveName(id))
	var st unix.Stat_t
	r.must(unix.Stat(r.under("half"), &st))
	if backing.KeyOf(&st) == (backing.Key{}) || st.Nlink != 1 {
		t.Errorf("the other link: %d", st.Nlink)
	}
}
