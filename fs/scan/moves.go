package scan

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// A move has two halves in one directory: the carrier, which has the file's name and the mark, and the
// companion. They are brought together by directory and id, and judged after the walk.

// mostSearches bounds how often a directory is looked through for a carrier. Names of companions can be
// made in any number.
const mostSearches = 256

// moveKey is where which move is.
type moveKey struct {
	dir string // below BACKING
	id  layout.FileID
}

// move is what was found of one move in one directory.
type move struct {
	carrier   *sight
	companion *sight
	gone      bool               // the companion was set aside, for the file to be removed
	record    *layout.MoveRecord // of the carrier; nil: none. Nobody has proven it
	fault     error              // of reading the record
}

// at is the move at a path.
func (l *later) at(p string, id layout.FileID) *move {
	key := moveKey{path.Dir(p), id}
	m := l.moves[key]
	if m == nil {
		m = &move{}
		l.moves[key] = m
	}
	return m
}

// carrier keeps f, a marked file.
func (l *later) carrier(s *scanner, b *cryptfile.OSFile, f *sight) {
	if !l.room(f) {
		return
	}
	h := f.found.Slots.Header
	m := l.at(f.path, h.Mark)
	if m.carrier != nil {
		s.add(f.finding(Move, fmt.Sprintf("it is marked as half of move %s, and so is %s beside it: a copy, which the mount refuses", h.Mark, m.carrier.name)))
		return
	}
	kept := *f
	m.carrier = &kept
	m.record, m.fault = readRecord(b, h)
}

// companion keeps f, which has the name of a companion.
func (l *later) companion(s *scanner, f *sight, id layout.FileID, gone bool) {
	if !l.room(f) {
		return
	}
	m := l.at(f.path, id)
	if m.companion != nil {
		s.add(f.finding(Move, fmt.Sprintf("it has a name of move %s, and so has %s beside it", id, m.companion.name)))
		return
	}
	kept := *f
	m.companion, m.gone = &kept, gone
}

// judgeMove adds what is wrong with m, a move of an id, if it is still there. now are the ids that the
// settings list.
func (s *scanner) judgeMove(ctx context.Context, m *move, id layout.FileID, now map[layout.FileID]bool) {
	if now[id] && !s.later.listed[id] {
		return // it began during the scan, and half of it may have come after the walk
	}
	if m.carrier != nil && !s.isMarked(ctx, m.carrier, id) {
		m.carrier = nil // it ended
	}
	if m.companion != nil && !s.isStill(m.companion) {
		m.companion = nil
	}
	if now[id] && s.isWhole(ctx, m, id) {
		return // the walk met one half before, and the other one after a change of names
	}
	switch {
	case m.carrier != nil && m.companion != nil:
		s.judgePair(m, id, now[id])
	case m.carrier != nil:
		s.judgeCarrier(m, id, now[id])
	case m.companion != nil:
		s.judgeCompanion(m, id)
	}
}

// isWhole reports whether the half that the walk did not meet of m, a move that is listed, is beside the
// other one by now.
func (s *scanner) isWhole(ctx context.Context, m *move, id layout.FileID) bool {
	switch {
	case (m.carrier == nil) == (m.companion == nil):
		return false
	case m.carrier != nil:
		return s.isThere(m.carrier.path, layout.MoveName(id))
	case s.later.searched == mostSearches:
		return false
	}
	s.later.searched++
	return s.hasCarrier(ctx, path.Dir(m.companion.path), id)
}

// hasCarrier reports whether a file in a directory is marked by the move id. Where nobody can tell, there
// is none.
func (s *scanner) hasCarrier(ctx context.Context, in string, id layout.FileID) bool {
	dir, err := s.parent(path.Join(in, "x"))
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	d, err := backing.OpenDir(dir, ".", unix.O_NOATIME)
	if err != nil {
		return false
	}
	defer d.Close()
	for ctx.Err() == nil {
		e, err := d.Read()
		if err != nil || e == nil {
			return false
		}
		name := string(e.Name)
		if e.Kind == unix.S_IFDIR || layout.Reserved(name) {
			continue
		}
		if s.isMarked(ctx, &sight{path: path.Join(in, name), name: name}, id) {
			return true
		}
	}
	return false
}

// judgePair judges a move of which both halves are there.
func (s *scanner) judgePair(m *move, id layout.FileID, listed bool) {
	about := func(why string) {
		s.add(m.carrier.finding(Move, fmt.Sprintf("half of move %s: %s", id, why)))
		s.add(m.companion.finding(Move, fmt.Sprintf("half of move %s, with %s: %s", id, m.carrier.name, why)))
	}
	r := m.record
	switch {
	case !listed:
		about("the settings do not list it, so it is a restore or a replay, and the mount refuses it (vmcryptfs moves accept)")
	case m.fault != nil:
		about("its record cannot be read: " + m.fault.Error())
	case r == nil:
		about("it has no record, so the mount refuses it")
	case m.gone:
		about("a removal was cut off; the next mount goes on with the move")
	case r.Companion != m.companion.id():
		about("its record means another companion")
	case r.Kind == layout.MoveEncrypt && m.companion.inClear():
		s.add(m.companion.finding(Moving, fmt.Sprintf("what move %s has not encrypted yet of %s (vmcryptfs moves list)", id, m.carrier.name)))
	}
}

// id is the file id of an encrypted file; zero for any other.
func (f *sight) id() layout.FileID {
	if f.found.Form != backing.Encrypted || f.found.Slots.Header == nil {
		return layout.FileID{}
	}
	return f.found.Slots.Header.FileID
}

// judgeCarrier judges a carrier without its companion. The end of a move removes the companion before the
// mark, so a listed move that has come to its end may lack it.
func (s *scanner) judgeCarrier(m *move, id layout.FileID, listed bool) {
	name := layout.MoveName(id)
	r := m.record
	switch {
	case !listed:
		s.add(m.carrier.finding(Move, fmt.Sprintf("it is marked as half of move %s, which the settings do not list, and %s is not beside it: the mount refuses it", id, name)))
	case m.fault != nil:
		s.add(m.carrier.finding(Move, fmt.Sprintf("half of move %s: its record cannot be read: %v", id, m.fault)))
	case r == nil:
		s.add(m.carrier.finding(Move, fmt.Sprintf("half of move %s: it has no record, and %s is not beside it, so the mount refuses it", id, name)))
	case r.Watermark == 0 && r.Kind != layout.MoveDecrypt, r.Watermark == layout.AllInSource && r.Kind == layout.MoveDecrypt:
	default:
		s.add(m.carrier.finding(Move, fmt.Sprintf("half of move %s: the other half, %s, is not beside it, so the mount refuses it; bring it back", id, name)))
	}
}

// judgeCompanion judges a companion without its carrier.
func (s *scanner) judgeCompanion(m *move, id layout.FileID) {
	f := m.companion
	why := "the file that it belongs to is not beside it, and the mount keeps it: bring that file back, or look at this one"
	switch {
	case m.gone:
		why = "the file that it belonged to was removed; the next mount removes this, too"
	case f.found.Slots.Header != nil && f.found.Slots.Header.Mark == id:
		why = "it never began; the next mount removes this"
	}
	s.add(f.finding(Move, fmt.Sprintf("half of move %s: %s", id, why)))
}

// readRecord is the record of the move that marks b: of both slots the one with the higher sequence
// that names the move and the file. nil: there is none. Nobody has proven it.
func readRecord(b *cryptfile.OSFile, h *layout.Header) (last *layout.MoveRecord, err error) {
	for _, off := range []int64{layout.RecordAOffset, layout.RecordBOffset} {
		p := make([]byte, layout.RecordSize)
		n, err := cryptfile.PeekAt(b, p, off)
		if err != nil {
			return nil, err
		}
		r, err := layout.DecodeRecord(p[:n])
		if errors.Is(err, layout.ErrUnsupported) {
			return nil, err
		}
		if err == nil && r.Move == h.Mark && r.Carrier == h.FileID && (last == nil || r.Sequence > last.Sequence) {
			last = r
		}
	}
	return last, nil
}
