package fs

import (
	"bytes"
	"context"
	"os"
	"testing"

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
