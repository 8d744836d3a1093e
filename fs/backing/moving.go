package backing

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// Role is which half of a moving file a file is.
type Role uint8

// The roles. A file is the carrier by its mark, the companion by its name.
const (
	Carrier Role = iota
	Companion
)

// String is "carrier" or "companion".
func (r Role) String() string {
	if r == Companion {
		return "companion"
	}
	return "carrier"
}

// Move is what can be told without a key of half of a moving file. None of it is proven: whoever
// writes into BACKING can write all of it.
type Move struct {
	ID     layout.FileID
	Role   Role
	Name   string             // of the companion, as it is or should be
	Other  string             // name of the other half; empty: it is not in the directory
	Record *layout.MoveRecord // nil: there is none, or no carrier to have one
	// CutOff: the companion's name is what the begin of a move left that was cut off. The next mount
	// removes it.
	CutOff bool
	// Size and Holes are of the whole file as the mount shows it; of a carrier with no fault.
	Size, Holes int64
}

// looks is how often a carrier is looked at whose two halves do not fit: a mover may be at work.
const looks = 3

// FindMove looks whether b, which has the name in the directory dir, is half of a moving file; nil
// if it is none. The error of a carrier that no mount would serve is layout.ErrDamaged, with all
// that was found beside it.
func FindMove(ctx context.Context, dir int, name string, b *cryptfile.OSFile) (*Move, error) {
	if id, _, ok := layout.ParseMoveName(name); ok {
		m := &Move{ID: id, Role: Companion, Name: name}
		if err := m.findCarrier(ctx, dir); err != nil || m.Other != "" {
			return m, err
		}
		return m, m.findBegin(ctx, b)
	}
	m, err := lookAtCarrier(ctx, dir, b)
	for look := 1; look < looks && errors.Is(err, layout.ErrDamaged); look++ {
		before := m
		if m, err = lookAtCarrier(ctx, dir, b); sameRecord(before, m) {
			break
		}
	}
	return m, err
}

func sameRecord(a, b *Move) bool {
	if a == nil || b == nil || a.Record == nil || b.Record == nil {
		return a == b
	}
	return *a.Record == *b.Record
}

// lookAtCarrier is FindMove for a file with any other name than a companion's.
func lookAtCarrier(ctx context.Context, dir int, b *cryptfile.OSFile) (*Move, error) {
	h, err := markedHeader(ctx, b)
	if h == nil || err != nil {
		return nil, err
	}
	m := &Move{ID: h.Mark, Name: layout.MoveName(h.Mark)}
	if m.Record, err = likelyRecord(b, h); err != nil {
		return m, err
	}
	companion, name, err := OpenCompanion(dir, m.ID)
	if err != nil {
		return m, err
	}
	if companion != nil {
		m.Other, m.Name = name, name
		defer companion.Close()
	}
	if m.Record == nil {
		return m, &MoveError{"neither of its two records of the move can be read"}
	}
	return m, m.measure(ctx, b, companion)
}

// markedHeader is the header of b if it is encrypted and bears a mark, else nil.
func markedHeader(ctx context.Context, b *cryptfile.OSFile) (*layout.Header, error) {
	if encrypted, err := cryptfile.IsEncrypted(b); !encrypted || err != nil {
		return nil, err
	}
	slots, err := ReadHeader(ctx, b)
	if err != nil || !slots.Header.Marked() {
		return nil, err
	}
	return slots.Header, nil
}

// likelyRecord is the record that counts if both MACs are right; nil if there is none.
func likelyRecord(b cryptfile.Backing, h *layout.Header) (*layout.MoveRecord, error) {
	var last *layout.MoveRecord
	for _, off := range []int64{layout.RecordAOffset, layout.RecordBOffset} {
		p := make([]byte, layout.RecordSize)
		n, err := cryptfile.PeekAt(b, p, off)
		if err != nil {
			return nil, fmt.Errorf("read record of move %s: %w", h.Mark, err)
		}
		r, err := layout.DecodeRecord(p[:n])
		if errors.Is(err, layout.ErrUnsupported) {
			return nil, err
		}
		if err != nil || r.Move != h.Mark || r.Carrier != h.FileID {
			continue
		}
		if last == nil || r.Sequence > last.Sequence {
			last = r
		}
	}
	return last, nil
}

// OpenCompanion opens the companion of the move id in the directory dir; nil if there is none. A
// companion that was to be removed together with its carrier is one, too: beside a carrier that is
// still there it counts. The caller closes the file.
func OpenCompanion(dir int, id layout.FileID) (b *cryptfile.OSFile, name string, err error) {
	for _, name := range []string{layout.MoveName(id), layout.GoneName(id)} {
		b, err := OpenFound(dir, name)
		if b != nil || err != nil {
			return b, name, err
		}
	}
	return nil, "", nil
}

// findCarrier looks into each file of the directory for the mark of m.
func (m *Move) findCarrier(ctx context.Context, dir int) error {
	d, err := OpenDir(dir, ".", unix.O_NOATIME)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		e, err := d.Read()
		if e == nil || err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		other := e.Kind != unix.S_IFREG && e.Kind != 0
		if other || layout.Reserved(string(e.Name)) {
			continue
		}
		if m.takeCarrier(ctx, dir, string(e.Name)) {
			return nil
		}
	}
}

// findBegin looks whether the companion b without a carrier is what the begin of a move leaves: D
// before it got the file's name, or a second name of the file.
func (m *Move) findBegin(ctx context.Context, b *cryptfile.OSFile) error {
	var st unix.Stat_t
	if err := unix.Fstat(b.Fd(), &st); err != nil {
		return fmt.Errorf("stat %s: %w", m.Name, err)
	}
	h, err := markedHeader(ctx, b)
	m.CutOff = err == nil && h != nil && h.Mark == m.ID || st.Nlink > 1
	return err
}

// takeCarrier makes the file name the carrier of m if it is. A file that cannot be read is not.
func (m *Move) takeCarrier(ctx context.Context, dir int, name string) bool {
	b, err := OpenFound(dir, name)
	if b == nil || err != nil {
		return false
	}
	defer b.Close()
	h, err := markedHeader(ctx, b)
	if h == nil || err != nil || h.Mark != m.ID {
		return false
	}
	m.Other = name
	m.Record, _ = likelyRecord(b, h) // what is wrong with the carrier, a look at the carrier tells
	return true
}
