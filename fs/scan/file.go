package scan

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// sight is a regular file as the walk met it.
type sight struct {
	path  string // below BACKING
	name  string
	key   backing.Key
	born  int64 // time of the last change of its inode, in nanoseconds
	rule  ruling
	found backing.Found
	err   error // of the look into the file
}

// inClear reports whether the file has content in clear, whatever its name says. A file with a header
// in slot B is an encrypted one that was damaged.
func (f *sight) inClear() bool {
	return (f.found.Form.IsClear() || f.found.Form == backing.Plain) && !f.found.Hidden && f.err == nil
}

// finding is a finding about the file.
func (f *sight) finding(kind, why string) Finding {
	return Finding{Kind: kind, Path: f.path, Bytes: f.found.Stored, Why: why, Clear: f.inClear()}.by(f.rule)
}

// file looks at the regular file name in the directory dir. An error ends the walk.
func (s *scanner) file(ctx context.Context, dir int, at, name string) error {
	f := sight{path: at, name: name, rule: hidden()}
	if !layout.Reserved(name) {
		f.rule = s.judge.judge(dir, at)
	}
	b, st, err := backing.Open(dir, name)
	if _, unfit := errors.AsType[*byname.UnfitError](err); unfit || errors.Is(err, unix.ENOENT) {
		return nil // gone since the walk met it
	}
	if err != nil {
		s.unread(at, err)
		return nil
	}
	defer b.Close()
	f.key, f.born = backing.KeyOf(st), st.Ctim.Nano()
	f.found, f.err = backing.Examine(ctx, b, f.rule.Verdict)
	if err := ctx.Err(); err != nil {
		return err
	}
	if layout.Reserved(name) {
		s.reserved(ctx, &f)
	} else {
		s.seen(ctx, b, &f)
	}
	return nil
}

// seen judges a file of a name that is nobody's.
func (s *scanner) seen(ctx context.Context, b *cryptfile.OSFile, f *sight) {
	left := leftBy(f.name)
	if left != "" {
		s.add(f.finding(Leftover, leftText(f, left)))
	}
	if s.header(f); f.err != nil {
		return
	}
	switch f.found.Form {
	case backing.Plain:
		if left == "" {
			s.cleartext(f)
		}
	case backing.Encrypted:
		s.key(ctx, f)
		if f.found.Slots.Header.Marked() {
			s.later.carrier(s, b, f)
		}
	}
}

// leftText says what a leftover is.
func leftText(f *sight, left string) string {
	text := "by its name " + left
	switch {
	case f.found.Form == backing.Plain && f.inClear():
		return text + ", in clear where its name says " + f.rule.Class.String()
	case f.inClear():
		return text + ", in clear"
	case f.found.Form == backing.Empty:
		return text + ", empty"
	}
	return text
}

// cleartext adds a file in clear under a name that is encrypted.
func (s *scanner) cleartext(f *sight) {
	if place := f.rule.adopts; place != "" {
		s.add(f.finding(Adopted, fmt.Sprintf("in clear where its name says %s; place %s adopts it, so it is served until vmcryptfs policy apply has moved it", f.rule.Class, place)))
		return
	}
	s.add(f.finding(Cleartext, fmt.Sprintf("in clear where its name says %s; a mount refuses it, unless with -o unencrypted", f.rule.Class)))
}

// header adds what is wrong with the header of a file, or with reading it.
func (s *scanner) header(f *sight) {
	switch {
	case f.err == nil:
	case f.found.Hidden, errors.Is(f.err, layout.ErrDamaged):
		s.add(f.finding(Damaged, f.err.Error()))
	case errors.Is(f.err, layout.ErrUnsupported):
		s.add(f.finding(Version, f.err.Error()))
	default:
		s.unread(f.path, f.err)
	}
}

// key adds an encrypted file whose header names a KEK that opens nothing.
func (s *scanner) key(ctx context.Context, f *sight) {
	if f.err != nil || f.found.Form != backing.Encrypted {
		return
	}
	if why := s.asker.lacks(ctx, f.found.Slots.Header); why != "" {
		s.add(f.finding(Key, why))
	}
}

// reserved judges a file of a name that is the program's.
func (s *scanner) reserved(ctx context.Context, f *sight) {
	host, ok := layout.ParseTemporary(f.name)
	id, gone, half := layout.ParseMoveName(f.name)
	switch {
	case half:
		s.later.companion(s, f, id, gone)
	case ok && host == s.Host:
		s.later.temporary(f, "of this host: its next mount of the datastore removes it")
	case ok:
		s.later.temporary(f, fmt.Sprintf("of host %s, whose next mount of the datastore removes it", host))
	case f.name == layout.PlaceTag+".new":
		s.later.temporary(f, "of a place's tag that was being written: vmcryptfs policy set or rebind removes it")
	default:
		s.add(f.finding(Reserved, "the name is reserved, so the file is hidden through the mount, and this version of vmcryptfs makes none of this name"))
	}
	if s.header(f); half {
		s.key(ctx, f)
	}
}
