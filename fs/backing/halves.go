package backing

import (
	"context"
	"fmt"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// MoveError says why the two halves of a moving file make no whole one. It is layout.ErrDamaged.
type MoveError struct{ what string }

// Error is the fault.
func (e *MoveError) Error() string { return "half of a moving file: " + e.what }

// Is reports whether target is layout.ErrDamaged.
func (e *MoveError) Is(target error) bool { return target == layout.ErrDamaged }

// Missing is the MoveError of a carrier without its companion.
func Missing(companion string) *MoveError {
	return &MoveError{fmt.Sprintf("the other half, %s in its directory, is missing", companion)}
}

// CarrierAlone reports whether, by the record r, the carrier holds the whole content.
func CarrierAlone(r *layout.MoveRecord) bool {
	if r.Kind == layout.MoveDecrypt {
		return r.Watermark == layout.AllInSource
	}
	return r.Watermark == 0
}

// half is one of the two files.
type half struct {
	b     cryptfile.Backing
	begin int64 // of the content in b
	size  int64 // of the content
}

func halfOf(b cryptfile.Backing, encrypted bool) (h half, err error) {
	h = half{b: b}
	if h.size, err = b.Size(); err == nil && encrypted {
		h.begin = layout.DataOffset
		h.size, _ = layout.LogicalLen(h.size - h.begin)
	}
	return h, err
}

func (h half) holes(from, to int64) (int64, error) { return holes(h.b, h.begin+from, h.begin+to) }

// measure finds the size of the whole file and its holes. companion is nil if there is none.
func (m *Move) measure(ctx context.Context, carrier, companion *cryptfile.OSFile) error {
	r := m.Record
	own, err := halfOf(carrier, true)
	if err != nil {
		return err
	}
	if CarrierAlone(r) {
		m.Size = own.size
		m.Holes, err = own.holes(0, own.size)
		return err
	}
	if companion == nil {
		return Missing(m.Name)
	}
	if err := m.checkForm(ctx, companion); err != nil {
		return err
	}
	other, err := halfOf(companion, r.Kind == layout.MoveDeep)
	if err != nil {
		return err
	}
	if r.Kind == layout.MoveDecrypt {
		return m.join(own, other)
	}
	return m.join(other, own)
}

// checkForm compares the form and the file id of the companion with the record.
func (m *Move) checkForm(ctx context.Context, companion *cryptfile.OSFile) error {
	encrypted, err := cryptfile.IsEncrypted(companion)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	if want := m.Record.Kind == layout.MoveDeep; encrypted != want {
		return &MoveError{fmt.Sprintf("the other half, %s, is of another form than the record says", m.Name)}
	}
	if !encrypted {
		return nil
	}
	slots, err := ReadHeader(ctx, companion)
	if err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	if slots.Header.FileID != m.Record.Companion || slots.Header.Marked() {
		return &MoveError{fmt.Sprintf("the other half, %s, is another file than the record says", m.Name)}
	}
	return nil
}

// join finds the size and the holes of a file that lies in s below the watermark, from there on in d.
func (m *Move) join(s, d half) (err error) {
	w := m.Record.Watermark
	m.Size = d.size
	if w == layout.AllInSource {
		w, m.Size = s.size, s.size
	}
	if s.size < w {
		return &MoveError{fmt.Sprintf("the part that is not moved yet ends at %d, and should end at %d", s.size, w)}
	}
	w = min(w, m.Size) // a shrink that was cut off
	below, err := s.holes(0, w)
	if err != nil {
		return err
	}
	above, err := d.holes(w, m.Size)
	m.Holes = below + above
	return err
}
