package move

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Plan is a move to begin. For a begin the caller has all locks of the file: nobody reads or writes
// it meanwhile.
type Plan struct {
	ID   layout.FileID // listed in the settings
	Kind layout.MoveKind
	Dir  Dir
	// Prepare copies owner, mode, times and extended attributes from S to D.
	Prepare func(d cryptfile.Backing) error
	// Header is the header of D, encrypted: wrapped, and neither marked nor sealed.
	Header layout.Header
	DEK    *keys.DEK // of Header
}

// BeginEncrypted begins a move to an encrypted D, of kind MoveEncrypt or MoveDeep, and takes over s
// and the plan's DEK, also on error. With an error and a nil Pair, F is S as before. With an error
// and a Pair, F is the Pair, and only the sync of the directory was refused: until the sync
// succeeds the file does not change.
func BeginEncrypted(p Plan, s Half) (*Pair, error) {
	source, err := newHalf(s.Backing, s.DEK)
	if err != nil {
		p.DEK.Wipe()
		return nil, err
	}
	pair, err := p.beginEncrypted(source, s.ID)
	if pair == nil {
		return nil, fmt.Errorf("begin to move: %w", errors.Join(err, source.Close()))
	}
	return pair, err
}

func (p Plan) beginEncrypted(s *half, companion layout.FileID) (*Pair, error) {
	if err := s.Sync(cryptfile.Full); err != nil {
		p.DEK.Wipe()
		return nil, err
	}
	made, err := p.Dir.Create()
	if err != nil {
		p.DEK.Wipe()
		return nil, err
	}
	d, r, err := p.fill(made, s, companion)
	if err != nil {
		return nil, errors.Join(err, p.Dir.Discard())
	}
	if err := p.publish(); err != nil {
		return nil, errors.Join(err, d.Close(), p.Dir.Discard())
	}
	pair := newPair(s, d, d, r, 0)
	pair.settled.Store(d.stored.refused.Load())
	if err := p.Dir.Sync(); err != nil {
		pair.freeze(p.Dir.Sync)
		return pair, fmt.Errorf("sync the directory of a file that begins to move: %w", err)
	}
	return pair, pair.cut()
}

// fill makes D of an empty file: header, attributes, length, the end of the content, record, durable.
func (p Plan) fill(b cryptfile.Backing, s *half, companion layout.FileID) (*half, layout.MoveRecord, error) {
	h := p.Header
	h.Mark = p.ID
	p.DEK.Seal(&h)
	r := layout.MoveRecord{Kind: p.Kind, Sequence: 1, Move: p.ID, Carrier: h.FileID, Companion: companion}
	if err := cryptfile.Format(b, &h); err != nil {
		p.DEK.Wipe()
		return nil, r, errors.Join(err, b.Close())
	}
	d, err := newHalf(b, p.DEK)
	if err != nil {
		return nil, r, err
	}
	if err = p.fillContent(d, s, &r); err != nil {
		return nil, r, errors.Join(err, d.Close())
	}
	return d, r, nil
}

func (p Plan) fillContent(d, s *half, r *layout.MoveRecord) error {
	n, err := s.Size()
	if err != nil {
		return err
	}
	r.Watermark = floor(n)
	if err := p.Prepare(d.stored); err != nil {
		return fmt.Errorf("copy attributes: %w", err)
	}
	if err := copyEnd(d, s, n); err != nil {
		return err
	}
	p.DEK.SealRecord(r)
	block := make([]byte, layout.RecordBlock)
	copy(block, r.AppendRecord(nil))
	if _, err := d.stored.WriteAt(block, layout.RecordAOffset, cryptfile.Volatile); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return d.Sync(cryptfile.Full)
}

// copyEnd gives D the size n and the content of S from the last whole unit on.
func copyEnd(d, s *half, n int64) error {
	if err := d.Truncate(n); err != nil {
		return err
	}
	at := floor(n)
	if at == n {
		return nil
	}
	var unit [layout.UnitSize]byte
	if err := readWhole(s, unit[:n-at], at); err != nil {
		return err
	}
	_, err := d.WriteAt(unit[:n-at], at, cryptfile.Volatile)
	return err
}

// publish gives D the name F, and S the companion's name.
func (p Plan) publish() error {
	if !p.Dir.CanExchange() {
		if err := p.Dir.LinkF(); err != nil {
			return err
		}
		if err := p.Dir.ReplaceF(); err != nil {
			return errors.Join(err, p.Dir.RemoveCompanion())
		}
		return nil
	}
	if err := p.Dir.LinkMade(); err != nil {
		return err
	}
	if err := p.Dir.Exchange(); err != nil {
		return errors.Join(err, p.Dir.RemoveCompanion())
	}
	return nil
}

// BeginClear begins a move of F, encrypted, to a D in clear, and takes over s, also on error. F
// bears the mark and the record that all is in S (MarkAll). EPERM: the content begins with the magic
// of an encrypted file. With an error and a nil Pair, F is S as before, marked.
func BeginClear(p Plan, s Half, f Found) (*Pair, error) {
	source, err := newHalf(s.Backing, s.DEK)
	if err != nil {
		return nil, err
	}
	pair, err := p.beginClear(source, f)
	if pair == nil {
		return nil, fmt.Errorf("begin to move: %w", errors.Join(err, source.Close()))
	}
	return pair, err
}

func (p Plan) beginClear(s *half, f Found) (*Pair, error) {
	var head [len(layout.Magic)]byte
	if _, err := s.PeekAt(head[:], 0); err != nil {
		return nil, err
	}
	if layout.HasMagic(head[:]) {
		return nil, fmt.Errorf("the content begins with the magic of an encrypted file: %w", unix.EPERM)
	}
	b, err := p.Dir.CreateCompanion()
	if err != nil {
		return nil, err
	}
	d, err := newHalf(b, nil)
	if err != nil {
		return nil, err
	}
	n, err := s.Size()
	if err == nil {
		err = p.storeBoth(d, s, n)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close(), p.Dir.RemoveCompanion())
	}
	return f.lowerFromAll(d, s, floor(n))
}

// storeBoth makes D, its name and S durable before the first record counts on D.
func (p Plan) storeBoth(d, s *half, n int64) error {
	return firstError(
		func() error { return copyEnd(d, s, n) },
		func() error { return d.Sync(cryptfile.Full) },
		p.Dir.Sync,
		func() error { return s.Sync(cryptfile.Full) },
	)
}

// lowerFromAll makes a Pair of both halves, with W at w.
func (f Found) lowerFromAll(d, s *half, w int64) (*Pair, error) {
	pair := newPair(s, d, s, f.Record, f.slot)
	pair.settled.Store(d.stored.refused.Load())
	pair.mu.Lock()
	err := pair.journal.write(w)
	if err != nil { // the disk may hold either: both are right as long as nothing changes
		pair.freeze(pair.settleRecord)
		pair.mu.Unlock()
		return pair, err
	}
	pair.watermark.Store(w)
	pair.zone.Store(w)
	pair.mu.Unlock()
	return pair, pair.cut()
}

// firstError does the steps up to the first that fails.
func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// RecordAll writes, durably, the record that all of F is in S: the step before the mark of a move of
// kind MoveDecrypt. b is F, dek its key, carrier its file id.
func RecordAll(b cryptfile.Backing, dek *keys.DEK, move, carrier layout.FileID) error {
	j := journal{carrier: &guard{Backing: b}, dek: dek, known: 1,
		last: layout.MoveRecord{Kind: layout.MoveDecrypt, Move: move, Carrier: carrier}}
	return j.write(layout.AllInSource)
}
