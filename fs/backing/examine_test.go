package backing

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// torn is a header of which the end was not written.
func torn() []byte { return header(2)[:layout.SlotSize/2] }

func TestExamine(t *testing.T) {
	t.Parallel()
	const head = layout.DataOffset
	for _, c := range []struct {
		name  string
		class layout.Class
		size  int64
		parts []part
		want  Found
		slot  string // that counts; empty: none
		err   error
	}{
		{"empty", layout.Encrypt, 0, nil, Found{Form: Empty}, "", nil},
		{"clear", layout.Clear, 3, nil, Found{Form: Clear, Size: 3}, "", nil},
		{"descriptor", layout.Inspect, int64(len(descriptor)), []part{{0, []byte(descriptor)}}, Found{Form: Descriptor, Size: int64(len(descriptor))}, "", nil},
		{"plain", layout.Encrypt, 2 * head, nil, Found{Form: Plain, Size: 2 * head}, "", nil},
		{"encrypted", layout.Clear, head + 512, []part{{0, header(1)}, {inSlotB, header(1)}}, Found{Form: Encrypted, Size: 512}, "A", nil},
		{"odd length", layout.Encrypt, head + 7, []part{{0, header(1)}, {inSlotB, header(1)}}, Found{Form: Encrypted, OddLength: true}, "A", nil},
		{"slot A torn", layout.Encrypt, head, []part{{0, torn()}, {inSlotB, header(1)}}, Found{Form: Encrypted}, "B", nil},
		{"slot B torn", layout.Encrypt, head, []part{{0, header(1)}, {inSlotB, torn()}}, Found{Form: Encrypted}, "A", nil},
		{"both torn", layout.Encrypt, head, []part{{0, torn()}, {inSlotB, torn()}}, Found{Form: Encrypted, Size: head}, "", layout.ErrDamaged},
		{"newer version", layout.Encrypt, head, []part{{0, newer()}, {inSlotB, newer()}}, Found{Form: Encrypted, Size: head}, "", layout.ErrUnsupported},
		{"hidden", layout.Encrypt, head + 512, []part{{inSlotB, header(1)}}, Found{Form: Plain, Size: 512, Hidden: true}, "B", ErrHidden},
		{"hidden, class clear", layout.Clear, head, []part{{inSlotB, header(1)}}, Found{Form: Clear, Hidden: true}, "B", ErrHidden},
		{"hidden, cut off", layout.Encrypt, head - 1, []part{{inSlotB, header(1)}}, Found{Form: Plain, Size: head - 1, Hidden: true}, "", layout.ErrDamaged},
		{"short", layout.Clear, 8, []part{{0, []byte(layout.Magic)}}, Found{Size: 8}, "", layout.ErrDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "f")
			plantParts(t, path, c.size, c.parts...)
			got, err := Examine(t.Context(), open(t, path), layout.Verdict{Class: c.class})
			if !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			slot := ""
			if got.Slots.Header != nil {
				slot = got.Slots.Which.String()
			}
			if slot != c.slot {
				t.Errorf("slot %q counts, want %q", slot, c.slot)
			}
			got.Slots, c.want.Stored = layout.Slots{}, c.size
			if got != c.want {
				t.Errorf("found %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestIsEncrypted: a wiped slot A is an error where a whole header may be left.
func TestIsEncrypted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		size int64
		part part
		want bool
		err  error
	}{
		{"by its magic", layout.DataOffset, part{0, []byte(layout.Magic)}, true, nil},
		{"cleartext", layout.DataOffset, part{}, false, nil},
		{"hidden", layout.DataOffset, part{inSlotB, header(1)}, false, ErrHidden},
		{"hidden, cut off", layout.DataOffset - 1, part{inSlotB, header(1)}, false, ErrHidden},
		{"short", layout.DataOffset - 1, part{0, []byte(layout.Magic)}, false, layout.ErrDamaged},
	} {
		path := filepath.Join(t.TempDir(), "f")
		plantParts(t, path, c.size, c.part)
		if got, err := IsEncrypted(open(t, path)); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %t, %v, want %t, %v", c.name, got, err, c.want, c.err)
		}
	}
}

// held is a file of the slots a and b, open for reading, with its header locked by another.
func held(t *testing.T, a, b []byte) (reader, writer *cryptfile.OSFile, unlock func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	plantEncrypted(t, path, a, b, 0)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	writer = cryptfile.NewOSFile(fd)
	t.Cleanup(func() { writer.Close() })
	unlock, err = writer.LockHeader(t.Context())
	must(t, err)
	return open(t, path), writer, unlock
}

// TestExamineBesideUpdate: a header that is being updated is read when the update has ended. An
// update that does not end is not waited for without bound.
func TestExamineBesideUpdate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		a, b   []byte
		ends   bool // with both slots whole
		differ bool
		err    error
	}{
		{"neither slot whole, ends", torn(), torn(), true, false, nil},
		{"one slot whole, ends", header(1), torn(), true, false, nil},
		{"neither slot whole, stays", torn(), torn(), false, false, context.DeadlineExceeded},
		{"one slot whole, stays", header(1), torn(), false, true, nil},
		{"both whole, stays", header(1), header(1), false, false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				reader, writer, unlock := held(t, c.a, c.b)
				if c.ends {
					time.AfterFunc(time.Second, func() {
						for _, off := range []int64{0, inSlotB} {
							_, err := writer.WriteAt(header(2), off, cryptfile.Volatile)
							must(t, err)
						}
						unlock()
					})
				}
				begun := time.Now()
				found, err := Examine(t.Context(), reader, layout.Verdict{})
				if !errors.Is(err, c.err) || errors.Is(err, layout.ErrDamaged) || found.Slots.Differ != c.differ {
					t.Errorf("slots differ: %t, %v, want %t, %v", found.Slots.Differ, err, c.differ, c.err)
				}
				if c.ends && found.Slots.Header.Generation != 2 {
					t.Errorf("generation %d, want that of the update", found.Slots.Header.Generation)
				}
				if waited := time.Since(begun); waited > 4*time.Second {
					t.Errorf("waited for %v, want at most 4 s", waited)
				}
			})
		})
	}
}
