package move

import (
	"errors"
	"fmt"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// ErrNoRecord reports that neither slot of a marked file holds a record that counts.
var ErrNoRecord = fmt.Errorf("%w: no record of the move is right", layout.ErrDamaged)

// journal writes the records of a move to the carrier. Guarded by Pair.mu.
type journal struct {
	carrier *guard
	dek     *keys.DEK
	last    layout.MoveRecord // written last, perhaps not known to be on disk
	known   int               // the slot known to be on disk
	knownW  int64             // the watermark there
	// unsynced: last is not known to be on disk; the disk may hold last or the record in known.
	unsynced bool
}

var recordOffsets = [2]int64{layout.RecordAOffset, layout.RecordBOffset}

// write writes the next record, with watermark w, durably. After an error the disk may hold this
// record or the one before.
func (j *journal) write(w int64) error {
	j.last.Sequence++
	j.last.Watermark = w
	j.dek.SealRecord(&j.last)
	j.unsynced = true
	return j.store()
}

// again makes last durable, if it is not known to be. A record whose sync was refused is written
// anew: another sync would store nothing.
func (j *journal) again() error {
	if !j.unsynced {
		return nil
	}
	return j.write(j.last.Watermark)
}

// store writes last over the slot that is not known to be on disk, and syncs.
func (j *journal) store() error {
	block := make([]byte, layout.RecordBlock)
	copy(block, j.last.AppendRecord(nil))
	slot := 1 - j.known
	refused := j.carrier.refused.Load()
	if _, err := j.carrier.WriteAt(block, recordOffsets[slot], cryptfile.Volatile); err != nil {
		return fmt.Errorf("write record of move %s: %w", j.last.Move, err)
	}
	if err := j.carrier.Sync(cryptfile.Data); err != nil {
		return fmt.Errorf("sync record of move %s: %w", j.last.Move, err)
	}
	if j.carrier.refused.Load() != refused { // a sync of a guest took the refusal
		return fmt.Errorf("sync record of move %s: %w", j.last.Move, errRefusedBeside)
	}
	j.known, j.knownW, j.unsynced = slot, j.last.Watermark, false
	return nil
}

// low is the least watermark that the disk may hold; AllInSource counts as the greatest of all.
func (j *journal) low() int64 {
	if !j.unsynced || j.last.Watermark == layout.AllInSource {
		return j.knownW
	}
	if j.knownW == layout.AllInSource {
		return j.last.Watermark
	}
	return min(j.knownW, j.last.Watermark)
}

// errRefusedBeside: another call was told that BACKING did not store what was written.
var errRefusedBeside = errors.New("another sync of the file was refused meanwhile")

// readRecords reads both slots of b, and finds the record that counts: of two with a right MAC, of
// the move and the carrier, the one with the higher sequence.
func readRecords(b cryptfile.Backing, dek *keys.DEK, move, carrier layout.FileID) (last layout.MoveRecord, slot int, err error) {
	slot = -1
	var newer error // a newer program's record, as far as nothing is proven
	var faults []error
	for i, off := range recordOffsets {
		r, err := readRecord(b, off)
		if err == nil {
			err = dek.VerifyRecord(r)
		}
		switch {
		case errors.Is(err, layout.ErrUnsupported):
			newer = err
		case err != nil:
			faults = append(faults, fmt.Errorf("at %d: %w", off, err))
		case r.Move != move || r.Carrier != carrier:
			faults = append(faults, fmt.Errorf("at %d: record of move %s of file %s", off, r.Move, r.Carrier))
		case slot < 0 || r.Sequence > last.Sequence:
			last, slot = *r, i
		}
	}
	if slot < 0 && newer != nil {
		return last, slot, newer
	}
	if slot < 0 {
		return last, slot, fmt.Errorf("%w: %w", ErrNoRecord, errors.Join(faults...))
	}
	return last, slot, nil
}

func readRecord(b cryptfile.Backing, off int64) (*layout.MoveRecord, error) {
	p := make([]byte, layout.RecordSize)
	if n, err := cryptfile.PeekAt(b, p, off); err != nil {
		return nil, err
	} else if n < len(p) {
		return nil, layout.ErrIllFormed
	}
	return layout.DecodeRecord(p)
}
