package content

import (
	"context"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/move"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// moving is the Content of a file on its way to another form, in two backing files.
type moving struct {
	*move.Pair
	carrier, companion *cryptfile.OSFile // the Pair's own
	dek                *keys.DEK         // of carrier; the Pair's own
	mark               layout.FileID
	times              times
}

// SyncFailure is the last lost write of either file: the companion reports to the carrier.
func (m *moving) SyncFailure() *cryptfile.SyncFailure { return m.carrier.SyncFailure() }

func (m *moving) UseDirect(change int) {
	m.carrier.UseDirect(change)
	m.companion.UseDirect(change)
}

func (m *moving) CountReads() {
	m.carrier.CountReads()
	m.companion.CountReads()
}

// healHeader makes the header slots of the carrier the same.
func (m *moving) healHeader(ctx context.Context) error {
	return m.carrier.MarkHeader(ctx, m.dek, m.mark)
}

var _ Content = (*moving)(nil)

// Moving is a file that moves, to be opened.
type Moving struct {
	Pair               *move.Pair
	Carrier, Companion *cryptfile.OSFile // the Pair's own
	DEK                *keys.DEK         // of Carrier; the Pair's own
}

// OpenMoving makes an open file of m, whose descriptors can do can. torn: the header slots of the
// carrier differ.
func OpenMoving(m Moving, can Intent, torn bool) *File {
	m.Companion.ReportTo(m.Carrier)
	c := &moving{Pair: m.Pair, carrier: m.Carrier, companion: m.Companion, dek: m.DEK, mark: m.Pair.ID()}
	c.times.carrier = m.Carrier
	return &File{Content: c, carrier: m.Carrier, Form: backing.Encrypted, Can: can, torn: torn}
}

// Pair is the two files of a file that moves; nil for any other file.
func (f *File) Pair() *move.Pair {
	if m, ok := f.Content.(*moving); ok {
		return m.Pair
	}
	return nil
}

// CompanionFd is the descriptor of the other half of a file that moves, owned by the File.
func (f *File) CompanionFd() int { return f.Content.(*moving).companion.Fd() }

// CompanionStat is fstat(2) of the other half of a file that moves. Mu is held.
func (f *File) CompanionStat(st *unix.Stat_t) error { return unix.Fstat(f.CompanionFd(), st) }

// ExchangeMoving is Exchange of a file that moves: companion becomes the descriptor of the other half.
func (f *File) ExchangeMoving(fd, companion int, can Intent) error {
	m := f.Content.(*moving)
	f.Can = can
	err := m.companion.Exchange(companion)
	if err != nil {
		m.carrier.InheritFailure(m.companion)
	}
	if other := m.carrier.Exchange(fd); other != nil {
		err = other
	}
	return err
}
