package scan

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// half is a carrier of a move, with its record.
func half(id layout.FileID, r layout.MoveRecord) (*layout.Header, part) {
	h := headerOf("k1")
	h.Mark = id
	r.Move, r.Carrier, r.Sequence = id, h.FileID, 1
	return h, part{layout.RecordAOffset, r.AppendRecord(nil)}
}

// TestMoves: halves of moves under way, unlisted, without a record, and without the other half.
func TestMoves(t *testing.T) {
	t.Parallel()
	listed, other := keys.NewFileID(), keys.NewFileID()
	encrypt := layout.MoveRecord{Kind: layout.MoveEncrypt, Watermark: 512}
	name, gone := layout.MoveName(listed), layout.GoneName(listed)
	for what, c := range map[string]struct {
		plant func(s *site)
		want  []string // findings, below vm
		why   string
	}{
		"under way": {func(s *site) {
			h, r := half(listed, encrypt)
			s.encrypted("vm/a-flat.vmdk", h, r)
			s.text("vm/"+name, "GUEST")
		}, []string{"moving " + name + " clear"}, "has not encrypted yet of a-flat.vmdk"},
		"to clear": {func(s *site) {
			h, r := half(listed, layout.MoveRecord{Kind: layout.MoveDecrypt, Watermark: 512})
			s.encrypted("vm/a-flat.vmdk", h, r)
			s.text("vm/"+name, "GUEST")
		}, nil, ""},
		"at its end": {func(s *site) {
			h, r := half(listed, layout.MoveRecord{Kind: layout.MoveEncrypt})
			s.encrypted("vm/a-flat.vmdk", h, r)
		}, nil, ""},
		"unlisted": {func(s *site) {
			h, r := half(other, encrypt)
			s.encrypted("vm/a-flat.vmdk", h, r)
			s.text("vm/"+layout.MoveName(other), "GUEST")
		}, []string{"move a-flat.vmdk", "move " + layout.MoveName(other) + " clear"}, "restore or a replay"},
		"unlisted carrier": {func(s *site) {
			h, r := half(other, encrypt)
			s.encrypted("vm/a-flat.vmdk", h, r)
		}, []string{"move a-flat.vmdk"}, "do not list"},
		"no record": {func(s *site) {
			h, _ := half(listed, encrypt)
			s.encrypted("vm/a-flat.vmdk", h)
			s.text("vm/"+name, "GUEST")
		}, []string{"move a-flat.vmdk", "move " + name + " clear"}, "no record"},
		"another's record": {func(s *site) {
			h, _ := half(listed, encrypt)
			_, r := half(listed, encrypt)
			s.encrypted("vm/a-flat.vmdk", h, r)
		}, []string{"move a-flat.vmdk"}, "no record"},
		"another companion": {func(s *site) {
			h, r := half(listed, layout.MoveRecord{Kind: layout.MoveDeep, Watermark: 512, Companion: other})
			s.encrypted("vm/a-flat.vmdk", h, r)
			s.encrypted("vm/"+name, headerOf("k1"))
		}, []string{"move a-flat.vmdk", "move " + name}, "another companion"},
		"no companion": {func(s *site) {
			h, r := half(listed, encrypt)
			s.encrypted("vm/a-flat.vmdk", h, r)
			s.text("elsewhere/"+name, "")
		}, []string{"move a-flat.vmdk", "move ../elsewhere/" + name}, "not beside it"},
		"no carrier": {func(s *site) { s.text("vm/"+name, "GUEST") }, []string{"move " + name + " clear"}, "bring that file back"},
		"begin cut off": {func(s *site) {
			h, _ := half(listed, encrypt)
			s.encrypted("vm/"+name, h)
		}, []string{"move " + name}, "never began"},
		"removed": {func(s *site) { s.text("vm/"+gone, "GUEST") }, []string{"move " + gone + " clear"}, "was removed"},
		"removal cut off": {func(s *site) {
			h, r := half(listed, encrypt)
			s.encrypted("vm/a-flat.vmdk", h, r)
			s.text("vm/"+gone, "GUEST")
		}, []string{"move a-flat.vmdk", "move " + gone + " clear"}, "removal was cut off"},
		"copied": {func(s *site) {
			h, r := half(listed, encrypt)
			s.encrypted("vm/a-flat.vmdk", h, r)
			s.encrypted("vm/b-flat.vmdk", h, r)
			s.text("vm/"+name, "")
		}, []string{"move copy"}, "a copy"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, layout.Settings{Moves: []layout.FileID{listed}})
			c.plant(s)
			r, got := s.scan()
			var want []string
			for _, w := range c.want {
				kind, at, _ := strings.Cut(w, " ")
				want = append(want, kind+" "+strings.TrimPrefix("vm/"+at, "vm/../"))
			}
			if what == "copied" { // which of the two is the copy, the order of the directory decides
				if len(got) != 1 || !strings.Contains(r.Findings[0].Why, c.why) {
					t.Errorf("%+v", r.Findings)
				}
				return
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("found %q, want %q", got, want)
			}
			if len(r.Findings) > 0 && !slices.ContainsFunc(r.Findings, func(f Finding) bool { return strings.Contains(f.Why, c.why) }) {
				t.Errorf("%+v, want %q", r.Findings, c.why)
			}
		})
	}
}

// TestMovesBeside: moves that begin or end while a mount is scanned are no findings.
func TestMovesBeside(t *testing.T) {
	t.Parallel()
	ended, begun, renamed, linked := keys.NewFileID(), keys.NewFileID(), keys.NewFileID(), keys.NewFileID()
	s := newSite(t, layout.Settings{Moves: []layout.FileID{ended, renamed, linked}})
	s.text(layout.MoveName(renamed), "GUEST") // its carrier gets its name after the walk
	l, record := half(linked, layout.MoveRecord{Kind: layout.MoveDecrypt, Watermark: 512})
	s.encrypted("l-flat.vmdk", l, record) // its companion does
	h, r := half(ended, layout.MoveRecord{Kind: layout.MoveEncrypt, Watermark: 512})
	s.encrypted("a-flat.vmdk", h, r)
	s.text(layout.MoveName(ended), "GUEST")
	s.text(layout.MoveName(begun), "GUEST")
	s.Again = func() (*layout.Settings, error) { // called after the walk
		s.must(os.Remove(filepath.Join(s.Store.Path(), layout.MoveName(ended))))
		h.Mark = layout.FileID{}
		s.encrypted("a-flat.vmdk", h)
		next := s.Store.Settings().Clone()
		next.Moves = []layout.FileID{begun, renamed, linked}
		h, r := half(renamed, layout.MoveRecord{Kind: layout.MoveEncrypt, Watermark: 512})
		s.encrypted("r-flat.vmdk", h, r)
		s.text(layout.MoveName(linked), "GUEST")
		next.Serial++
		return &next, nil
	}
	if r := s.finds(); len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "changed during the scan") {
		t.Errorf("%q", r.Notes)
	}
}
