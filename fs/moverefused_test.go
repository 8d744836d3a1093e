package fs

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/move"
	"vmcryptfs/layout"
)

// refusing is a directory that refuses one of its steps, once. Steps back are not refused.
type refusing struct {
	move.Dir
	at      *int   // steps until the refusal
	refused func() // called at the refusal; nil: nothing
	what    map[string]bool
}

func (r *refusing) step(name string, do func() error) error {
	r.what[name] = true
	if *r.at--; *r.at == -1 {
		if r.refused != nil {
			r.refused()
		}
		return unix.EIO
	}
	return do()
}

func (r *refusing) make(name string, do func() (cryptfile.Backing, error)) (b cryptfile.Backing, err error) {
	err = r.step(name, func() (err error) { b, err = do(); return err })
	return b, err
}

func (r *refusing) Create() (cryptfile.Backing, error) { return r.make("create", r.Dir.Create) }
func (r *refusing) LinkMade() error                    { return r.step("link D", r.Dir.LinkMade) }
func (r *refusing) Exchange() error                    { return r.step("exchange", r.Dir.Exchange) }
func (r *refusing) Sync() error                        { return r.step("sync", r.Dir.Sync) }
func (r *refusing) CreateCompanion() (cryptfile.Backing, error) {
	return r.make("create companion", r.Dir.CreateCompanion)
}

// TestBeginRefused: BACKING refuses each step of a begin in turn. The file serves on, as before or
// half of a move, and moves at the next try.
func TestBeginRefused(t *testing.T) {
	for name, kind := range movable {
		t.Run(kind.String(), func(t *testing.T) {
			for at, over := 0, false; !over; at++ {
				r := newRig(t, nil)
				want := movingText()
				r.write(name, string(want))
				if kind == layout.MoveDecrypt {
					r.rule(nil, []string{name})
				}
				left, what := at, map[string]bool{}
				r.fs.refuser = func(d move.Dir) move.Dir { return &refusing{Dir: d, at: &left, what: what} }
				m := r.mover(name)
				err := m.Begin(t.Context(), kind, r.listed())
				over = left >= 0
				if (err == nil) != over || err != nil && !errors.Is(err, unix.EIO) {
					t.Errorf("step %d refused: %v", at, err)
				}
				r.wantRead(name, string(want))
				if m.Pair() == nil {
					r.wantIn("", name)
					seen, err := r.fs.looksBeside(r.fs.table.Root().FD(), name)
					if err != nil || seen.move != none {
						t.Errorf("step %d refused, and the file is marked: %+v, %v", at, seen, err)
					}
					r.must(m.Begin(t.Context(), kind, r.listed()))
				}
				r.finish(m)
				r.wantRead(name, string(want))
				r.wantIn("", name)
				r.unmount()
				if over && len(what) < 2 {
					t.Errorf("only %v was refused", what)
				}
			}
		})
	}
}

// TestBeginStillMarked: where BACKING refuses to take the mark out again, the caller is told, and the
// next open takes it out.
func TestBeginStillMarked(t *testing.T) {
	r := newRig(t, nil)
	want := movingText()
	r.write("c.img", string(want))
	r.rule(nil, []string{"c.img"})
	other, err := openBeside(unix.AT_FDCWD, r.under("c.img"), false)
	r.must(err)
	left := 0
	unlock := func() {}
	r.fs.refuser = func(d move.Dir) move.Dir {
		return &refusing{Dir: d, at: &left, what: map[string]bool{}, refused: func() { // as a rekey does
			unlock, err = other.LockHeader(t.Context())
			r.must(err)
		}}
	}
	m := r.mover("c.img")
	err = m.Begin(t.Context(), layout.MoveDecrypt, r.listed())
	if !errors.Is(err, ErrStillMarked) || !errors.Is(err, unix.EIO) || m.Pair() != nil {
		t.Errorf("begin: %v, pair %v", err, m.Pair())
	}
	unlock()
	r.must(other.Close())
	r.wantRead("c.img", string(want))
	r.must(m.Close())
	r.idle()
	if seen, err := r.fs.looksBeside(r.fs.table.Root().FD(), "c.img"); err != nil || seen.move == none {
		t.Errorf("the file bears no mark, and nothing is tested: %v", err)
	}
	r.wantRead("c.img", string(want))
	if seen, err := r.fs.looksBeside(r.fs.table.Root().FD(), "c.img"); err != nil || seen.move != none {
		t.Errorf("the file is marked after an open: %v", err)
	}
}

// TestBeginNotThis: files with several links, removed ones, and ones whose name other hands have
// taken are not moved, and stay as they are.
func TestBeginNotThis(t *testing.T) {
	for name, kind := range movable {
		t.Run(kind.String(), func(t *testing.T) {
			r := newRig(t, nil)
			want := movingText()
			if kind == layout.MoveDecrypt {
				r.rule(nil, []string{"never"})
			}
			for _, tt := range []struct {
				what string
				do   func(at string) error
				want error
			}{
				{"linked", func(at string) error { return os.Link(r.path(at), r.path("link"+at)) }, ErrSeveralLinks},
				{"removed", func(at string) error { return os.Remove(r.path(at)) }, ErrGone},
				{"renamed by others", func(at string) error { return os.Rename(r.under(at), r.under("x"+at)) }, unix.ENOENT},
			} {
				at := fmt.Sprintf("%d%s", len(tt.what), name)
				r.write(at, string(want))
				f := r.open(at, os.O_RDWR)
				m := r.mover(at)
				r.must(tt.do(at))
				if err := m.Begin(t.Context(), kind, r.listed()); !errors.Is(err, tt.want) || m.Pair() != nil {
					t.Errorf("%s: %v, want %v", tt.what, err, tt.want)
				}
				got := make([]byte, len(want))
				if n, err := f.ReadAt(got, 0); err != nil || string(got) != string(want) {
					t.Errorf("%s: %d bytes, %v", tt.what, n, err)
				}
				r.must(f.Close())
				r.must(m.Close())
			}
			for _, left := range r.inBacking("") {
				if layout.Reserved(left) {
					t.Errorf("%s is left", left)
				}
			}
		})
	}
}

// TestBeginOtherForm: a file that was moved already, by the last steps at an open, is not moved once
// more: its ciphertext would be taken for content.
func TestBeginOtherForm(t *testing.T) {
	for name, kind := range movable {
		if kind == layout.MoveDeep {
			continue
		}
		t.Run(kind.String(), func(t *testing.T) {
			r := newRig(t, nil)
			m, id, want := r.halfway(name, kind)
			r.steps(m)
			r.must(m.Close())
			r.remount()
			m = r.mover(name)
			if err := m.Begin(t.Context(), kind, id); m.Pair() != nil || !errors.Is(err, ErrOtherForm) {
				t.Errorf("begin: %v", err)
			}
			r.must(m.Close())
			r.idle()
			r.wantRead(name, string(want))
		})
	}
}
