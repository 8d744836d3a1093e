package fs

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

func (r *rig) stat(at string) (st unix.Stat_t) {
	r.t.Helper()
	r.must(unix.Stat(at, &st))
	return st
}

// TestMoveAttributes: size and blocks of a moving file, open and not; times follow writes to either
// half.
func TestMoveAttributes(t *testing.T) {
	for name, kind := range movable {
		t.Run(kind.String(), func(t *testing.T) {
			r := newRig(t, nil)
			m, id, want := r.halfway(name, kind)
			check := func(when string) {
				t.Helper()
				r.must(m.Pair().Sync(1)) // blocks are given late
				st, blocks := r.stat(r.path(name)), r.stat(r.under(name)).Blocks+r.stat(r.under(layout.MoveName(id))).Blocks
				if st.Size != int64(len(want)) || st.Blocks != blocks {
					t.Errorf("%s: %d bytes, %d blocks, want %d and %d", when, st.Size, st.Blocks, len(want), blocks)
				}
			}
			check("open")
			f := r.open(name, os.O_RDWR)
			old := unix.NsecToTimespec(time.Now().Add(-time.Hour).UnixNano())
			for _, off := range []int64{0, int64(len(want)) - 600} { // below W, and above
				r.must(unix.UtimesNanoAt(unix.AT_FDCWD, r.path(name), []unix.Timespec{old, old}, 0))
				if st := r.stat(r.path(name)); st.Mtim.Sec != old.Sec {
					t.Errorf("set to %v, shown as %v", old, st.Mtim)
				}
				for range 3 {
					_, err := f.WriteAt([]byte("W"), off)
					r.must(err)
				}
				want[off] = 'W'
				r.must(f.Sync())
				if st := r.stat(r.under(name)); time.Since(time.Unix(st.Mtim.Unix())) > time.Minute {
					t.Errorf("a write at %d: the carrier's mtime is %v", off, time.Unix(st.Mtim.Unix()))
				}
			}
			r.must(f.Truncate(int64(len(want)) + 5000))
			want = append(want, make([]byte, 5000)...)
			check("grown")
			r.must(f.Close())
			r.must(m.Close())
			r.remount()
			size := r.stat(r.path(name))
			if size.Size != int64(len(want)) || size.Blocks != r.stat(r.under(name)).Blocks+r.stat(r.under(layout.MoveName(id))).Blocks {
				t.Errorf("not open: %d bytes, %d blocks, want %d bytes", size.Size, size.Blocks, len(want))
			}
			r.wantRead(name, string(want))
		})
	}
}

// TestMoveSeenAnew: the size of a file that is not open follows its companion.
func TestMoveSeenAnew(t *testing.T) {
	r := newRig(t, nil)
	m, id, want := r.halfway("c.img", layout.MoveDecrypt)
	r.must(m.Close())
	r.remount()
	for range 2 {
		if st := r.stat(r.path("c.img")); st.Size != int64(len(want)) {
			t.Errorf("%d bytes, want %d", st.Size, len(want))
		}
		want = append(want, "by others"...)
		r.must(os.Truncate(r.under(layout.MoveName(id)), int64(len(want))))
		time.Sleep(1100 * time.Millisecond) // the kernel believes attributes for a second
	}
}

// TestMovingRequests: the requests of a guest, on a file that moves.
func TestMovingRequests(t *testing.T) {
	for name, kind := range movable {
		t.Run(kind.String(), func(t *testing.T) {
			r := newRig(t, nil)
			m, _, want := r.halfway(name, kind)
			w := m.Pair().Watermark()
			f := r.open(name, os.O_RDWR)
			r.must(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, w-8192, 16384))
			clear(want[w-8192 : w+8192])
			r.wantRead(name, string(want))
			r.must(unix.Fallocate(int(f.Fd()), 0, 0, int64(len(want))+4096))
			want = append(want, make([]byte, 4096)...)
			r.wantRead(name, string(want))
			if hole, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE); err != nil || hole > int64(len(want)) || hole < 4096 {
				t.Errorf("hole at %d, %v", hole, err)
			}
			a := r.open(name, os.O_WRONLY|os.O_APPEND)
			_, err := a.WriteString("appended")
			r.must(err)
			want = append(want, "appended"...)
			r.wantRead(name, string(want))
			in, out := int64(0), w-1000
			n, err := unix.CopyFileRange(int(f.Fd()), &in, int(f.Fd()), &out, 2000, 0)
			r.must(err)
			copy(want[w-1000:], bytes.Clone(want[:n]))
			r.wantRead(name, string(want))
			r.must(errors.Join(a.Close(), f.Close()))
			short := w - 777
			r.must(os.Truncate(r.path(name), short))
			r.wantRead(name, string(want[:short]))
			r.must(os.WriteFile(r.path(name), []byte("anew"), 0)) // O_TRUNC
			r.wantRead(name, "anew")
			if _, err := m.Pair().Step(t.Context(), func(context.Context, int64) error { return nil }); err != nil {
				t.Error(err)
			}
			r.finish(m)
			r.wantRead(name, "anew")
			r.idle()
			r.wantRead(name, "anew")
		})
	}
}

// TestMovingDescriptor: late binding leaves a moving file alone, even one that has become a
// descriptor.
func TestMovingDescriptor(t *testing.T) {
	r := newRig(t, nil)
	m, id, _ := r.halfway("a.vmdk", layout.MoveDeep)
	r.must(os.WriteFile(r.path("a.vmdk"), []byte(descriptor), 0))
	r.idleBut(1)
	r.wantForm("a.vmdk", "encrypted")
	r.wantIn("", "a.vmdk", layout.MoveName(id))
	r.finish(m)
	r.wantRead("a.vmdk", descriptor)
}

// TestMoveReadOnly: a moving file is read through a read-only mount, and moved once the mount writes.
func TestMoveReadOnly(t *testing.T) {
	for name, kind := range movable {
		t.Run(kind.String(), func(t *testing.T) {
			r := newRig(t, nil)
			m, id, want := r.halfway(name, kind)
			r.must(m.Close())
			r.config.ReadOnly = true
			r.remount()
			f := r.open(name, os.O_RDONLY)
			got := make([]byte, len(want))
			if n, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", n, err)
			}
			if _, err := r.fs.OpenMover(name); !errors.Is(err, unix.EROFS) {
				t.Errorf("a mover of a read-only mount: %v", err)
			}
			r.must(r.fs.SetReadOnly(false))
			m = r.mover(name)
			r.wantIn("", name, layout.MoveName(id))
			r.finish(m)
			if n, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("after the move: %d bytes, %v", n, err)
			}
		})
	}
}

// TestMoveLocked: without keys an open file goes on, and its steps; later opens wait for the key.
func TestMoveLocked(t *testing.T) {
	for name, kind := range movable {
		t.Run(kind.String(), func(t *testing.T) {
			r := newRig(t, nil)
			m, _, want := r.halfway(name, kind)
			f := r.open(name, os.O_RDWR)
			r.idleBut(1)
			r.cache.Lock()
			defer r.cache.Unlock()
			_, err := f.WriteAt([]byte("LOCKED"), 100)
			r.must(err)
			copy(want[100:], "LOCKED")
			r.steps(m)
			got := make([]byte, len(want))
			if n, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", n, err)
			}
			r.must(f.Close())
			r.must(m.Close())
			r.idle()
			if _, err := os.ReadFile(r.path(name)); !errors.Is(err, unix.ENOKEY) {
				t.Errorf("opened anew: %v", err)
			}
			r.cache.Unlock()
			r.wantRead(name, string(want))
		})
	}
}

// TestMoveBusy: a file moves once at a time.
func TestMoveBusy(t *testing.T) {
	for name, kind := range movable {
		t.Run(kind.String(), func(t *testing.T) {
			r := newRig(t, nil)
			m, _, want := r.halfway(name, kind)
			for _, again := range movable {
				if err := m.Begin(t.Context(), again, r.listed()); !errors.Is(err, ErrMoving) || !errors.Is(err, unix.EBUSY) {
					t.Errorf("a second begin, %v: %v", again, err)
				}
			}
			r.wantRead(name, string(want))
			r.finish(m)
			r.wantRead(name, string(want))
		})
	}
}
