package fs

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// TestFindMoves: carriers are found with their ids, and what a crash left of others is removed.
func TestFindMoves(t *testing.T) {
	r := newRig(t, nil)
	r.mkdir("d")
	m, id, want := r.halfway("d/a.img", layout.MoveDeep)
	r.must(m.Close())
	r.idle()
	begun, linked, stray, gone := keys.NewFileID(), keys.NewFileID(), keys.NewFileID(), keys.NewFileID()
	// A begin that was cut off: the new file, marked, has the companion's name.
	r.write("b.img", "new")
	r.idle()
	r.mark("b.img", begun)
	r.must(os.Rename(r.under("b.img"), r.under(layout.MoveName(begun))))
	// One by links: the file has the companion's name, too.
	r.write("f.log", "file")
	r.must(os.Link(r.under("f.log"), r.under(layout.MoveName(linked))))
	r.plant("d/"+layout.MoveName(stray), "half")
	r.plant(layout.GoneName(gone), "half")
	r.plant(layout.MoveName(gone)+"-x", "a name of no move")
	r.remount()
	found, strays, err := r.fs.FindMoves(t.Context())
	if err != nil || !slices.Equal(found, []FoundMove{{id, "d/a.img"}}) || !slices.Equal(strays, []string{"d/" + layout.MoveName(stray)}) {
		t.Errorf("found %v, strays %q, %v", found, strays, err)
	}
	r.wantIn("", "d", "f.log", layout.MoveName(gone)+"-x")
	r.wantIn("d", "a.img", layout.MoveName(id), layout.MoveName(stray))
	r.wantRead("f.log", "file")
	r.wantRead("d/a.img", string(want))
}

// mark marks an encrypted file of BACKING.
func (r *rig) mark(name string, id layout.FileID) {
	r.t.Helper()
	b, err := openBeside(unix.AT_FDCWD, r.under(name), false)
	r.must(err)
	defer b.Close()
	seen, err := looksOf(b)
	if err != nil || !seen.encrypted {
		r.t.Fatalf("%s: %+v, %v", name, seen, err)
	}
	dek, _ := r.dekOf(name)
	defer dek.Wipe()
	r.must(b.MarkHeader(r.t.Context(), dek, id))
}

// dekOf is the DEK of a file of BACKING.
func (r *rig) dekOf(name string) (*keys.DEK, layout.FileID) {
	r.t.Helper()
	n, err := r.fs.recallPath(name)
	r.must(err)
	defer r.fs.table.Forget(n.ID, 1)
	dek, id, err := r.fs.keyOf(r.t.Context(), n)
	r.must(err)
	return dek, id
}

// TestFindMovesReadOnly: nothing is removed from a BACKING that is read-only.
func TestFindMovesReadOnly(t *testing.T) {
	r := newRig(t, nil)
	gone := layout.GoneName(keys.NewFileID())
	r.plant(gone, "half")
	r.config.ReadOnly = true
	r.remount()
	r.wantFound("", none)
	r.wantIn("", gone)
}

// TestFindMovesStops with its context, and says so.
func TestFindMovesStops(t *testing.T) {
	r := newRig(t, nil)
	r.mkdir("d")
	m, id, _ := r.halfway("a.img", layout.MoveDeep)
	r.must(m.Close())
	r.idle()
	ctx := &stopped{Context: t.Context(), after: 2}
	if _, _, err := r.fs.FindMoves(ctx); !errors.Is(err, errStopped) {
		t.Errorf("a walk that is stopped: %v", err)
	}
	r.wantFound("a.img", id)
}

// stopped is a context that ends after some looks at it.
type stopped struct {
	context.Context
	after int
}

var errStopped = errors.New("stopped")

func (s *stopped) Err() error {
	if s.after--; s.after < 0 {
		return errStopped
	}
	return nil
}

// TestFindMovesBesideRenames: a file that is renamed from directory to directory during the walk is
// found, or there is an error.
func TestFindMovesBesideRenames(t *testing.T) {
	r := newRig(t, nil)
	r.mkdir("d")
	r.mkdir("e")
	m, id, _ := r.halfway("d/a.img", layout.MoveDeep)
	r.must(m.Close())
	var renames sync.WaitGroup
	stop := make(chan struct{})
	renames.Go(func() {
		for from, to := "d/a.img", "e/a.img"; ; from, to = to, from {
			if err := r.rename(from, to); err != nil {
				t.Error(err)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	walks := 0
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); walks++ {
		found, strays, err := r.fs.FindMoves(t.Context())
		if err == nil && (len(found) != 1 || found[0].ID != id) || len(strays) > 0 || err != nil && !errors.Is(err, errWalked) {
			t.Fatalf("found %v, strays %q, %v", found, strays, err)
		}
	}
	close(stop)
	renames.Wait()
	t.Logf("%d walks", walks)
}

// TestSweepLeavesHalves: no sweep of temporaries removes a companion.
func TestSweepLeavesHalves(t *testing.T) {
	r := newRig(t, nil)
	move, gone := layout.MoveName(keys.NewFileID()), layout.GoneName(keys.NewFileID())
	r.plant(move, "half")
	r.plant(gone, "half")
	leftover := r.fs.temps.host + "00112233445566ff-8899aabbccddeeff"
	r.plant(leftover, "left")
	r.must(r.fs.removeLeftovers(t.Context()))
	r.wantIn("", move, gone)
}
