package main

import (
	"context"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// moveInfo holds the facts about half of a moving file. No key proves them.
type moveInfo struct {
	ID        string `json:"id"`
	Role      string `json:"role"`                // "carrier" or "companion"
	Companion string `json:"companion"`           // its name, in the carrier's directory
	Found     bool   `json:"found"`               // the other half is there
	Kind      string `json:"kind,omitempty"`      // "encrypt", "decrypt" or "deep"; empty: no record can be read
	Watermark *int64 `json:"watermark,omitempty"` // the content below is not moved yet; -1: nothing is
	Proven    bool   `json:"proven"`              // always false
	other     string // name of the other half
}

// findMove adds the facts about a move, if b, with the path at in BACKING, is half of a moving file.
func (i *fileInfo) findMove(ctx context.Context, b *cryptfile.OSFile, at string) error {
	dir, err := openDirOf(at)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	m, err := backing.FindMove(ctx, dir, filepath.Base(at), b)
	if m == nil {
		return err
	}
	i.Move = moveOf(m)
	switch {
	case err != nil:
		return err
	case m.Role == backing.Carrier:
		i.Size, i.Holes = m.Size, m.Holes
	default:
		i.Problem = companionProblem(i, m)
	}
	return nil
}

// openDirOf opens the directory of the path at for looking names up.
func openDirOf(at string) (int, error) {
	return unix.Open(filepath.Dir(at), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// companionProblem is what is wrong with a companion. Cleartext is no problem: it is what is not
// encrypted yet, or not yet a file of its own.
func companionProblem(i *fileInfo, m *backing.Move) string {
	if m.CutOff {
		return "the begin of a move was cut off here: the next mount removes this name"
	}
	if m.Other == "" {
		return "no file in its directory is the other half: bring that here, or leave this one where it is"
	}
	if i.Form == backing.Plain.String() {
		return ""
	}
	return i.Problem
}

func moveOf(m *backing.Move) *moveInfo {
	i := &moveInfo{ID: m.ID.String(), Role: m.Role.String(), Companion: m.Name, Found: m.Other != "", other: m.Other}
	if m.Record != nil {
		i.Kind, i.Watermark = m.Record.Kind.String(), &m.Record.Watermark
	}
	return i
}

// print shows m, of a file of the size, to people.
func (m *moveInfo) print(to page, size int64) {
	to.row("move", "%s of move %s%s", m.Role, m.ID, m.progress(size))
	other := words.Printable(m.other)
	if !m.Found {
		other = "missing"
		if m.Role == backing.Carrier.String() {
			other = words.Printable(m.Companion) + ", " + m.absence()
		}
	}
	to.row("other half", "%s", other)
}

// absence tells whether the companion is missed.
func (m *moveInfo) absence() string {
	if m.Watermark == nil {
		return "missing"
	}
	kind := layout.MoveEncrypt
	if m.Kind == layout.MoveDecrypt.String() {
		kind = layout.MoveDecrypt
	}
	if backing.CarrierAlone(&layout.MoveRecord{Kind: kind, Watermark: *m.Watermark}) {
		return "not there, and not needed"
	}
	return "missing"
}

// progress tells how far the move is, by a record that nothing has proven.
func (m *moveInfo) progress(size int64) string {
	if m.Watermark == nil {
		return ""
	}
	left := "nothing is moved yet"
	if *m.Watermark != layout.AllInSource {
		left = fmt.Sprintf("%d bytes to go", *m.Watermark)
		if m.Role == backing.Carrier.String() {
			left = fmt.Sprintf("%d of %d bytes to go", min(*m.Watermark, size), size)
		}
	}
	return fmt.Sprintf(": %s, %s (not proven)", m.Kind, left)
}
