package move

import (
	"fmt"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// End does the last steps of a move whose W is 0, up to the id's leaving the settings: each may have
// been done already. clearMark takes the mark out of F's header; attributes copies S's attributes to
// D. Afterwards F is D alone.
func (p *Pair) End(dir Dir, clearMark func() error, attributes func() error) error {
	if w := p.watermark.Load(); w != 0 {
		return fmt.Errorf("end a move with %d bytes to go", w)
	}
	if p.kind == layout.MoveDecrypt {
		return firstError(
			attributes,
			func() error { return p.d.stored.Sync(cryptfile.Full) },
			dir.RestoreCompanion,
			dir.Sync,
		)
	}
	return firstError(dir.RemoveCompanion, dir.Sync, clearMark)
}

// EndBack is End of a move that went back: all is in S. Afterwards F is S alone.
func (p *Pair) EndBack(dir Dir, clearMark func() error) error {
	if w := p.watermark.Load(); w != layout.AllInSource {
		return fmt.Errorf("end a move back with W at %d", w)
	}
	if p.kind == layout.MoveDecrypt {
		return firstError(dir.RemoveCompanion, dir.Sync, clearMark)
	}
	return firstError(dir.RestoreCompanion, dir.Sync)
}

// ZeroRecords removes the records from a file whose move is over. A refusal leaves what counts for
// nothing.
func ZeroRecords(b cryptfile.Backing) error {
	zeros := make([]byte, layout.RecordBlock)
	return firstError(
		func() error { _, err := b.WriteAt(zeros, layout.RecordAOffset, cryptfile.Volatile); return err },
		func() error { _, err := b.WriteAt(zeros, layout.RecordBOffset, cryptfile.Volatile); return err },
	)
}
