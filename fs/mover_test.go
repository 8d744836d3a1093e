package fs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// listed lists a new move in the settings.
func (r *rig) listed() layout.FileID {
	r.t.Helper()
	id := keys.NewFileID()
	err := r.store.Edit(r.t.Context(), r.cache, func(s *layout.Settings) error {
		s.Moves = append(s.Moves, id)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// mover opens name to move it.
func (r *rig) mover(name string) *Mover {
	r.t.Helper()
	m, err := r.fs.OpenMover(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// step does all steps of a move.
func (r *rig) steps(m *Mover) {
	r.t.Helper()
	for done := false; !done; {
		var err error
		done, err = m.Pair().Step(r.t.Context(), func(context.Context, int64) error { return nil })
		r.must(err)
	}
}

// TestMove moves a file in each way, open and written meanwhile.
func TestMove(t *testing.T) {
	for name, kind := range map[string]layout.MoveKind{
		"a.img": layout.MoveDeep,
		"b.log": layout.MoveEncrypt,
		"c.img": layout.MoveDecrypt,
	} {
		t.Run(kind.String(), func(t *testing.T) {
			r := newRig(t, nil)
			want := bytes.Repeat([]byte("0123456789abcde\n"), 200_000)
			want = append(want, "tail"...)
			r.write(name, string(want))
			if kind == layout.MoveDecrypt {
				r.rule(nil, []string{name})
			}
			f := r.open(name, os.O_RDWR)
			m := r.mover(name)
			r.must(m.Begin(t.Context(), kind, r.listed()))
			if _, err := f.WriteAt([]byte("WRITTEN"), 1_000_001); err != nil {
				t.Fatal(err)
			}
			copy(want[1_000_001:], "WRITTEN")
			r.wantRead(name, string(want))
			r.steps(m)
			r.wantRead(name, string(want))
			r.must(m.End(t.Context()))
			r.wantRead(name, string(want))
			if _, err := f.WriteAt([]byte("AFTER"), 2_000_001); err != nil {
				t.Fatal(err)
			}
			copy(want[2_000_001:], "AFTER")
			r.must(f.Close())
			r.must(m.Close())
			r.wantRead(name, string(want))
			r.remount()
			if kind != layout.MoveEncrypt {
				r.wantRead(name, string(want))
			}
			if got, want := r.form(name), map[bool]string{true: "clear", false: "encrypted"}[kind == layout.MoveDecrypt]; got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
			r.wantEntries(name)
		})
	}
}

// TestMoveAcrossMounts: a mount that ends in the middle of a move, and the next one goes on.
func TestMoveAcrossMounts(t *testing.T) {
	for name, kind := range map[string]layout.MoveKind{
		"a.img": layout.MoveDeep,
		"b.log": layout.MoveEncrypt,
		"c.img": layout.MoveDecrypt,
	} {
		for _, back := range []bool{false, true} {
			t.Run(fmt.Sprint(kind, " back ", back), func(t *testing.T) {
				r := newRig(t, nil)
				want := bytes.Repeat([]byte("0123456789abcde\n"), 5_000_000) // 80 MB: two zones
				want = append(want, "tail"...)
				r.write(name, string(want))
				if kind == layout.MoveDecrypt {
					r.rule(nil, []string{name})
				}
				m := r.mover(name)
				r.must(m.Begin(t.Context(), kind, r.listed()))
				_, err := m.Pair().Step(t.Context(), func(context.Context, int64) error { return nil })
				r.must(err)
				w := m.Pair().Watermark()
				r.must(m.Close())
				r.remount()
				var st unix.Stat_t
				r.must(unix.Stat(r.path(name), &st))
				if st.Size != int64(len(want)) {
					t.Errorf("%d bytes long, with nobody having it open; want %d", st.Size, len(want))
				}
				r.wantRead(name, string(want))
				m = r.mover(name)
				if m.Pair() == nil || m.Pair().Watermark() != w || w == 0 {
					t.Fatalf("the pair %v goes on at %d", m.Pair(), w)
				}
				if back {
					r.must(m.Pair().Turn(true))
					for done := false; !done; {
						done, err = m.Pair().Back(t.Context(), func(context.Context, int64) error { return nil })
						r.must(err)
					}
					r.must(m.Pair().Return())
				} else {
					r.steps(m)
				}
				r.must(m.Close())
				r.remount() // the last steps are the next mount's
				r.wantRead(name, string(want))
				if got, want := r.form(name), map[bool]string{true: "clear", false: "encrypted"}[(kind == layout.MoveDecrypt) != back && kind != layout.MoveDeep || kind == layout.MoveEncrypt && back]; got != want {
					t.Errorf("%s is %s, want %s", name, got, want)
				}
				r.idle()
				r.wantEntries(name)
			})
		}
	}
}
