package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/wire"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// fileInfo holds the facts about a file that need no key. Lengths are in bytes.
type fileInfo struct {
	Path      string      `json:"path"`
	Backing   string      `json:"backing,omitempty"` // the path in BACKING of a path below a mount
	Form      string      `json:"form"`              // "encrypted", "clear", "empty", "unencrypted" or "damaged"
	Problem   string      `json:"problem,omitempty"`
	Verdict   verdict     `json:"verdict"`
	Size      int64       `json:"size"`      // as seen through the mount
	Stored    int64       `json:"stored"`    // of the backing file
	Allocated int64       `json:"allocated"` // bytes on the disk
	Holes     int64       `json:"holes"`     // of the size
	Header    *headerInfo `json:"header,omitempty"`
	Move      *moveInfo   `json:"move,omitempty"` // of half of a moving file
	// WantedKEK is the key that the file has, or should have, by its place; nil: its class is
	// clear, or it lies in no datastore.
	WantedKEK *wire.KeyName `json:"wanted_kek,omitempty"`
}

// headerInfo describes the valid header.
type headerInfo struct {
	Version    int          `json:"version"`
	Cipher     string       `json:"cipher"`
	FileID     string       `json:"file_id"`
	Generation uint64       `json:"generation"`
	Slot       string       `json:"slot"`
	SlotA      string       `json:"slot_a"` // "ok", or the damage
	SlotB      string       `json:"slot_b"`
	Differ     bool         `json:"slots_differ"` // a header update was cut off
	Lockers    []lockerInfo `json:"lockers"`
}

// lockerInfo is one wrap of the file's DEK.
type lockerInfo struct {
	Index      int    `json:"index"`
	Wrap       int    `json:"wrap"` // 1: under a KMIP KEK
	Provider   string `json:"provider"`
	Identifier string `json:"identifier"`
	Check      string `json:"check"` // key check value
}

// info describes backing files. A path may lead through a mount.
func (p *program) info(ctx context.Context, args []string) error {
	f := p.flags("info")
	asJSON := f.Bool("json", false, "print JSON")
	paths, err := p.parse(f, args, "FILE… [--json]", 1, -1)
	if err != nil {
		return err
	}
	all := []fileInfo{}
	var errs []error
	for _, path := range paths {
		i, err := readInfo(ctx, path)
		if err != nil {
			errs = append(errs, err)
			if i == nil {
				continue
			}
		}
		all = append(all, *i)
	}
	if *asJSON {
		return errors.Join(append(errs, p.printJSON(all))...)
	}
	for i := range all {
		if i > 0 {
			fmt.Fprintln(p.stdout)
		}
		all[i].print(page{to: p.stdout})
	}
	return errors.Join(errs...)
}

// readInfo reads all readable facts. Damage is an error beside the facts.
func readInfo(ctx context.Context, path string) (*fileInfo, error) {
	i := &fileInfo{Path: path}
	at, mounted, err := behind(path)
	if err != nil {
		return nil, err
	}
	if mounted {
		i.Backing = at
	}
	b, st, err := openBacking(at)
	if mounted && isAny(err, unix.EACCES, unix.EPERM) {
		err = notReadable(path, at, err)
	}
	if err != nil {
		return nil, err
	}
	defer b.Close()
	v, err := i.judge(at)
	if err != nil {
		return nil, err
	}
	i.Allocated = st.Blocks * 512
	err = i.examine(ctx, b, v)
	if err == nil {
		err = i.findMove(ctx, b, at)
	}
	if err != nil {
		i.Form, i.Problem = "damaged", err.Error()
		return i, fmt.Errorf("%s: %w", path, err)
	}
	return i, nil
}

// judge adds what the rules say of the file at a path in BACKING, or outside of datastores.
func (i *fileInfo) judge(at string) (layout.Verdict, error) {
	name := filepath.Base(at)
	in, rel, err := nameInDatastore("", filepath.Dir(at)+"/"+name)
	if err != nil {
		return layout.Verdict{}, err
	}
	if in == "" {
		v := layout.Classify(name)
		i.Verdict = spelled(name, v)
		return v, nil
	}
	j, err := judgedIn(in, rel)
	if err != nil {
		return layout.Verdict{}, err
	}
	i.Verdict = spelled(name, j.Verdict)
	i.Verdict.Place = governing(&j)
	if j.Class != layout.Clear {
		i.WantedKEK = &j.KEK
	}
	return j.Verdict, nil
}

// examine adds the facts in BACKING about the file b under the verdict v.
func (i *fileInfo) examine(ctx context.Context, b *cryptfile.OSFile, v layout.Verdict) error {
	found, err := backing.Examine(ctx, b, v)
	i.Form, i.Stored, i.Size = found.Form.String(), found.Stored, found.Size
	if found.Slots.Header != nil {
		i.Header = headerOf(found.Slots)
	} else if err != nil {
		return err
	}
	switch {
	case found.OddLength:
		i.Problem = fmt.Sprintf("a stored length of %d bytes of data decodes to none: the file counts as empty", i.Stored-layout.DataOffset)
	case found.Form == backing.Plain && i.Verdict.Place != nil && i.Verdict.Place.Adopt:
		i.Problem = "cleartext under a name that is encrypted: the mount serves it, since its place adopts, until vmcryptfs policy apply has moved it"
	case found.Form == backing.Plain:
		i.Problem = "cleartext under a name that is encrypted: the mount refuses to open it"
	}
	holes, holesErr := found.Holes(b)
	if holesErr != nil {
		return holesErr
	}
	i.Holes = holes
	return err
}

// headerOf describes the valid header in the slots s.
func headerOf(s layout.Slots) *headerInfo {
	states := [2]string{layout.SlotA: "ok", layout.SlotB: "ok"}
	if s.OtherFault != nil {
		states[s.Which.Other()] = s.OtherFault.Error()
	}
	return &headerInfo{
		Version: 1, Cipher: "XTS-AES-256", FileID: s.Header.FileID.String(), Generation: s.Header.Generation,
		Slot: s.Which.String(), SlotA: states[layout.SlotA], SlotB: states[layout.SlotB],
		Differ: s.Differ, Lockers: lockers(s.Header),
	}
}

func lockers(h *layout.Header) []lockerInfo {
	list := []lockerInfo{}
	for n, l := range h.Lockers {
		if l.Wrap != 0 {
			list = append(list, lockerInfo{n, int(l.Wrap), l.Provider, l.KeyID, hex.EncodeToString(l.KCV[:])})
		}
	}
	return list
}

// wantedText says which key the file should have, and whether it is under another.
func (i *fileInfo) wantedText() string {
	w := i.WantedKEK
	text := fmt.Sprintf("%s of provider %s", words.Printable(w.Identifier), words.Printable(w.Provider))
	if i.Header == nil {
		return text
	}
	for _, l := range i.Header.Lockers {
		if l.Provider == w.Provider && l.Identifier == w.Identifier {
			return text
		}
	}
	return text + ": the file is under another, vmcryptfs rekey changes that"
}

// print shows i to people.
func (i *fileInfo) print(to page) {
	to.row("file", "%s", words.Printable(i.Path))
	if i.Backing != "" {
		to.row("backing", "%s", words.Printable(i.Backing))
	}
	to.row("form", "%s", i.Form)
	if i.Problem != "" {
		to.row("problem", "%s", words.Line(i.Problem))
	}
	to.row("class", "%s (%s)", i.Verdict.Class, i.Verdict.why())
	if i.Verdict.Place != nil {
		to.row("place", "%s", strings.TrimPrefix(i.Verdict.Place.text(), "place "))
	}
	if i.WantedKEK != nil {
		to.row("wanted key", "%s", i.wantedText())
	}
	to.row("size", "%d bytes, of which %d in holes", i.Size, i.Holes)
	to.row("stored", "%d bytes, %d allocated", i.Stored, i.Allocated)
	if i.Move != nil {
		i.Move.print(to, i.Size)
	}
	h := i.Header
	if h == nil {
		return
	}
	to.row("file id", "%s", h.FileID)
	to.row("header", "version %d, %s, generation %d of slot %s", h.Version, h.Cipher, h.Generation, h.Slot)
	if h.Differ {
		to.row("slots", "A: %s; B: %s; a header update was cut off, the next open for writing mends it", h.SlotA, h.SlotB)
	}
	for _, l := range h.Lockers {
		to.row(fmt.Sprintf("locker %d", l.Index), "%s", strings.TrimSpace(fmt.Sprintf("wrap %d, key %s of provider %s, check value %s", l.Wrap, words.Printable(l.Identifier), words.Printable(l.Provider), l.Check)))
	}
}
