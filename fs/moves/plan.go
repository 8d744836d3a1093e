package moves

import (
	"context"
	"errors"
	"path"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// usualRate is what a move without a rate is guessed to copy in a second, in bytes.
const usualRate = 200 << 20

// Differ is a file whose form or KEK is not what its place wants. The JSON is that of `policy check`.
type Differ struct {
	Path      string        `json:"path"`
	Raw       []byte        `json:"raw,omitempty"` // of a path that is not UTF-8
	Form      string        `json:"form"`          // "encrypted", "clear", "unencrypted"; "moving": half of a move
	Wanted    string        `json:"wanted"`        // "encrypted" or "clear"
	KEK       *wire.KeyName `json:"kek,omitempty"` // of an encrypted file
	WantedKEK *wire.KeyName `json:"wanted_kek,omitempty"`
	Bytes     int64         `json:"bytes"`
	Extra     int64         `json:"extra"`   // space that it takes meanwhile, in bytes
	Seconds   int64         `json:"seconds"` // a guess

	kind layout.MoveKind // 0: the KEK alone differs
	kek  keys.Ref        // wanted
	mark layout.FileID   // of a move under way
}

// plan is a walk for files that differ.
type plan struct {
	*Config
	deep   bool  // every encrypted file gets another DEK
	rate   int64 // for the guess
	shares bool
	found  func(*Differ) error                // an error ends the walk
	broken func(path string, err error) error // of what cannot be judged
}

// below walks what lies at a path below BACKING.
func (p *plan) below(ctx context.Context, at string) error {
	w := backing.Walk{Root: p.Store.Fd(), Broken: p.broken, Visit: func(dir int, at string, e *backing.Entry) error {
		if e.Kind != unix.S_IFREG || layout.Reserved(string(e.Name)) {
			return nil
		}
		d, err := p.judge(ctx, dir, at)
		switch {
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return p.broken(at, err)
		case d == nil:
			return nil
		}
		return p.found(d)
	}}
	return w.From(ctx, at)
}

// judge is nil for a file that is as wanted.
func (p *plan) judge(ctx context.Context, dir int, at string) (*Differ, error) {
	b, err := backing.OpenFound(dir, path.Base(at))
	if err != nil || b == nil {
		return nil, err
	}
	defer b.Close()
	wanted := p.FS.Wanted(dir, at)
	form, err := backing.Judge(b, wanted.Verdict)
	if err != nil {
		return nil, err
	}
	size, err := b.Size()
	if err != nil {
		return nil, err
	}
	d := &Differ{Path: at, Form: form.String(), Wanted: "encrypted", Bytes: size, kek: wanted.KEK}
	if !utf8.ValidString(at) {
		d.Raw = []byte(at)
	}
	switch form {
	case backing.Plain:
		if p.deep {
			return nil, nil
		}
		d.kind = layout.MoveEncrypt
	case backing.Encrypted:
		differs, err := p.judgeEncrypted(ctx, b, d, &wanted)
		if err != nil || !differs {
			return nil, err
		}
	default:
		return nil, nil
	}
	if d.Wanted == "encrypted" {
		d.WantedKEK = &wire.KeyName{Provider: wanted.KEK.Provider, Identifier: wanted.KEK.ID}
	}
	p.estimate(d)
	return d, nil
}

// judgeEncrypted completes d for an encrypted file.
func (p *plan) judgeEncrypted(ctx context.Context, b *cryptfile.OSFile, d *Differ, wanted *fs.Wanted) (differs bool, err error) {
	slots, err := backing.ReadHeader(ctx, b)
	if err != nil {
		return false, err
	}
	h := slots.Header
	d.Bytes, _ = layout.LogicalLen(d.Bytes - layout.DataOffset)
	name, fits := kekOf(h, wanted.KEK)
	d.KEK = name
	toClear := wanted.Verdict.Class == layout.Clear
	switch {
	case h.Marked():
		d.mark, d.Form = h.Mark, "moving"
		if toClear {
			d.Wanted = "clear"
		}
		return true, nil
	case p.deep:
		d.kind = layout.MoveDeep
		return true, nil
	case toClear:
		d.Wanted, d.kind = "clear", layout.MoveDecrypt
		return true, nil
	}
	return !fits, nil
}

// kekOf is the KEK that a header names first, and reports whether one of its lockers is under want.
func kekOf(h *layout.Header, want keys.Ref) (name *wire.KeyName, fits bool) {
	for i := range h.Lockers {
		l := &h.Lockers[i]
		if l.Wrap != layout.WrapKMIP {
			continue
		}
		is := l.Provider == want.Provider && l.KeyID == want.ID
		if name == nil || is && !fits {
			name = &wire.KeyName{Provider: l.Provider, Identifier: l.KeyID}
		}
		fits = fits || is
	}
	return name, fits
}

// estimate says what d takes.
func (p *plan) estimate(d *Differ) {
	if d.kind == 0 && d.mark == (layout.FileID{}) { // its header alone is written
		return
	}
	d.Extra = extra(d.Bytes, p.shares)
	rate := int64(usualRate)
	if p.rate > 0 {
		rate = p.rate
	}
	d.Seconds = (d.Bytes + rate - 1) / rate
}

// errWalk marks errors that end a walk on purpose.
var errWalk = errors.New("the walk was ended")
