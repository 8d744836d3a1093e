package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// fileInfo is what can be told of a file without a key. Lengths are in bytes.
type fileInfo struct {
	Path      string      `json:"path"`
	Backing   string      `json:"backing,omitempty"` // where it lies, when path is below a mount
	Form      string      `json:"form"`              // "encrypted", "clear", "empty", "unencrypted" or "damaged"
	Problem   string      `json:"problem,omitempty"`
	Verdict   verdict     `json:"verdict"`
	Size      int64       `json:"size"`      // as seen through the mount
	Stored    int64       `json:"stored"`    // of the backing file
	Allocated int64       `json:"allocated"` // on its disk
	Holes     int64       `json:"holes"`     // of the size
	Header    *headerInfo `json:"header,omitempty"`
}

// headerInfo is the header that counts.
type headerInfo struct {
	Version    int          `json:"version"`
	Cipher     string       `json:"cipher"`
	FileID     string       `json:"file_id"`
	Generation uint64       `json:"generation"`
	Slot       string       `json:"slot"`
	SlotA      string       `json:"slot_a"` // "ok", or what is wrong
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

// info tells of backing files, also by their path through a mount.
func (p *program) info(_ context.Context, args []string) error {
	f := p.flags("info")
	asJSON := f.Bool("json", false, "print JSON")
	paths, err := p.parse(f, args, "FILE… [--json]", 1, -1)
	if err != nil {
		return err
	}
	all := []fileInfo{}
	var errs []error
	for _, path := range paths {
		i, err := readInfo(path)
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

// readInfo reads what there is. Damage is an error beside what could be read.
func readInfo(path string) (*fileInfo, error) {
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
	rules, err := rulesOf(at)
	if err != nil {
		return nil, err
	}
	i.Verdict = judge(rules, filepath.Base(at))
	i.Stored, i.Size, i.Allocated = st.Size, st.Size, st.Blocks*512
	err = i.readForm(b)
	if err != nil {
		i.Form, i.Problem = "damaged", err.Error()
		return i, fmt.Errorf("%s: %w", path, err)
	}
	return i, nil
}

// readForm finds the form, the header and the holes.
func (i *fileInfo) readForm(b cryptfile.Backing) error {
	encrypted, err := cryptfile.IsEncrypted(b)
	if err != nil {
		return err
	}
	hidden, err := cryptfile.HasSlotB(b)
	if err != nil {
		return err
	}
	switch {
	case encrypted:
		i.Form = "encrypted"
		return i.readEncrypted(b)
	case hidden:
		if err := i.readEncrypted(b); err != nil {
			return err
		}
		return fmt.Errorf("%w: slot A has lost its magic, slot B is whole: vmcryptfs export can read it", layout.ErrDamaged)
	case i.Stored == 0:
		i.Form = "empty"
	case i.Verdict.Class == layout.Clear.String():
		i.Form = "clear"
	case i.Verdict.Class == layout.Inspect.String() && isDescriptor(b, i.Stored):
		i.Form = "clear"
	default:
		i.Form = "unencrypted"
		i.Problem = "cleartext under a name that is encrypted: the mount refuses to open it"
	}
	i.Holes, err = holes(b, 0, i.Stored)
	return err
}

// isDescriptor tells if the whole file is a VMDK text descriptor.
func isDescriptor(b cryptfile.Backing, size int64) bool {
	if size > layout.MaxDescriptor {
		return false
	}
	text := make([]byte, size)
	n, err := b.ReadAt(text, 0)
	return err == nil && n == len(text) && layout.IsDescriptor(text)
}

// readEncrypted reads the header and the logical length.
func (i *fileInfo) readEncrypted(b cryptfile.Backing) error {
	slots, err := cryptfile.ReadHeader(b)
	if err != nil {
		return err
	}
	h := slots.Header
	i.Header = &headerInfo{
		Version: 1, Cipher: "XTS-AES-256", FileID: h.FileID.String(), Generation: h.Generation,
		Slot: slots.Which.String(), SlotA: slotState(b, layout.SlotA), SlotB: slotState(b, layout.SlotB),
		Differ: slots.Differ, Lockers: lockers(h),
	}
	size, ok := layout.LogicalLen(i.Stored - layout.DataOffset)
	i.Size = size
	if !ok {
		i.Problem = fmt.Sprintf("a stored length of %d bytes of data decodes to none: the file counts as empty", i.Stored-layout.DataOffset)
	}
	i.Holes, err = holes(b, layout.DataOffset, layout.DataOffset+size)
	return err
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

// slotState is "ok", or why the slot does not count.
func slotState(b cryptfile.Backing, s layout.Slot) string {
	slot := make([]byte, layout.SlotSize)
	n, err := b.ReadAt(slot, s.Offset())
	if err == nil {
		_, err = layout.DecodeSlot(slot[:n])
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}

// holes counts the bytes in [from, to) that BACKING holds as holes.
func holes(b cryptfile.Backing, from, to int64) (int64, error) {
	var total int64
	for from < to {
		data, err := b.Seek(from, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return total + to - from, nil
		}
		if err != nil {
			return 0, err
		}
		total += min(data, to) - from
		if from, err = b.Seek(data, unix.SEEK_HOLE); err != nil {
			return 0, err
		}
	}
	return total, nil
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
	to.row("size", "%d bytes, of which %d in holes", i.Size, i.Holes)
	to.row("stored", "%d bytes, %d allocated", i.Stored, i.Allocated)
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
