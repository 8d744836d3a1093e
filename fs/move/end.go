package move

import (
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// The last steps of a move, up to the id's leaving the settings. Each step may have been done
// already.

// EndInCarrier ends a move whose whole content is in the carrier: W is 0, of the kinds MoveEncrypt and
// MoveDeep; all is in S, of the kind MoveDecrypt. unmark takes the mark out of the carrier's header.
func EndInCarrier(dir Dir, unmark func() error) error {
	return firstError(dir.RemoveCompanion, dir.Sync, unmark)
}

// EndInCompanion ends a move whose whole content is in the companion, which has the carrier's
// attributes: W is 0, of the kind MoveDecrypt; all is in S, of the other kinds.
func EndInCompanion(dir Dir, companion cryptfile.Backing) error {
	return firstError(
		func() error { return companion.Sync(cryptfile.Full) },
		dir.RestoreCompanion,
		dir.Sync,
	)
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
