package move

import (
	"errors"
	"fmt"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// ErrCompanion reports that the other half of a marked file is missing, or is not the one that the
// record means.
var ErrCompanion = fmt.Errorf("%w: the other half of the moving file", layout.ErrDamaged)

// refreshed is the number of bytes of the carrier that are read anew before a record counts: as many
// as the page cache may keep in one piece with the records (a folio).
const refreshed = 2 << 20

// Found is a carrier whose record is proven.
type Found struct {
	Record layout.MoveRecord
	slot   int
}

// Find reads the record of the move that marks the carrier b, whose header h is proven by dek. b is
// synced, and its records are read below the page cache: a kill leaves there what was never stored.
// Nothing else is changed. Errors are BACKING's, ErrNoRecord, and layout.ErrUnsupported.
func Find(b cryptfile.Backing, h *layout.Header, dek *keys.DEK) (Found, error) {
	if err := b.Sync(cryptfile.Data); err != nil {
		return Found{}, fmt.Errorf("sync a moving file: %w", err)
	}
	if r, ok := b.(cryptfile.Refresher); ok {
		if err := r.Refresh(0, refreshed); err != nil {
			return Found{}, fmt.Errorf("read the record from disk: %w", err)
		}
	}
	last, slot, err := readRecords(b, dek, h.Mark, h.FileID)
	return Found{last, slot}, err
}

// Seem is what the carrier b, whose header is h, seems to record, by no key: for attributes alone. It
// may be anything that somebody has put there.
func Seem(b cryptfile.Backing, h *layout.Header) (last layout.MoveRecord, err error) {
	err = ErrNoRecord
	for _, off := range recordOffsets {
		r, fault := readRecord(b, off)
		if fault == nil && r.Move == h.Mark && r.Carrier == h.FileID && r.Sequence > last.Sequence {
			last, err = *r, nil
		}
	}
	return last, err
}

// Half is one of the two files: Backing, and the DEK of an encrypted one.
type Half struct {
	Backing cryptfile.Backing
	DEK     *keys.DEK // nil: in clear
	ID      layout.FileID
}

// Open makes a Pair of a carrier and its companion, and takes over both halves, also on error. W is
// above 0, or all is in S. ErrCompanion: the companion is not the record's, or ends before W. A
// companion that ends after W, and a shrink that was cut off, are seen to by the first Step.
func Open(f Found, carrier, companion Half) (*Pair, error) {
	s, d := carrier, companion
	if f.Record.Kind != layout.MoveDecrypt {
		s, d = companion, carrier
	}
	p, err := open(f, s, d)
	if err != nil {
		return nil, err
	}
	if err := p.checkCompanion(companion.ID); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func open(f Found, s, d Half) (*Pair, error) {
	source, err := newHalf(s.Backing, s.DEK)
	if err != nil {
		return nil, errors.Join(err, closeHalf(d))
	}
	destination, err := newHalf(d.Backing, d.DEK)
	if err != nil {
		return nil, errors.Join(err, source.Close())
	}
	carrier := destination
	if f.Record.Kind == layout.MoveDecrypt {
		carrier = source
	}
	return newPair(source, destination, carrier, f.Record, f.slot), nil
}

func closeHalf(h Half) error {
	h.DEK.Wipe()
	return h.Backing.Close()
}

// checkCompanion compares the companion with the record.
func (p *Pair) checkCompanion(id layout.FileID) error {
	r := &p.journal.last
	if id != r.Companion {
		return fmt.Errorf("%w is file %v, and the record means %v", ErrCompanion, id, r.Companion)
	}
	if r.Watermark == layout.AllInSource {
		return nil
	}
	size, err := p.s.Size()
	if err == nil && size < r.Watermark {
		err = fmt.Errorf("%w ends at %d, and the record has content there up to %d", ErrCompanion, size, r.Watermark)
	}
	return err
}
