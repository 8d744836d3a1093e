package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"

	"vmcryptfs/advice"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// draft is a text of settings in an editor. What somebody wrote is kept until it is sealed,
// whatever goes wrong before.
type draft struct {
	path string // of its file; empty before there is one
	text []byte // what was written last, without the lines of edit
	work bool   // somebody has written something
}

// open puts text into a directory of its own.
func (d *draft) open(text []byte) error {
	// An editor may put a new file in the old one's place: in a directory where others may
	// write, one of them could be faster, and his settings would be sealed.
	dir, err := os.MkdirTemp("", "vmcryptfs-settings-*")
	if err != nil {
		return err
	}
	d.path, d.text = filepath.Join(dir, datastore.SettingsName), text
	return d.write(text)
}

// write replaces the file's text: the old one stays where there is no room for both.
func (d *draft) write(text []byte) error {
	next := d.path + ".new"
	err := os.WriteFile(next, text, 0o600)
	if err == nil {
		err = os.Rename(next, d.path)
	}
	if err != nil {
		os.Remove(next)
	}
	return err
}

// read takes over what an editor left where shown was. A file that it took away comes back as
// it was last.
func (d *draft) read(shown []byte) error {
	written, err := os.ReadFile(d.path)
	if err != nil {
		return errors.Join(err, d.write(d.text))
	}
	d.work = d.work || !bytes.Equal(written, shown)
	d.text = withoutErrors(written)
	return nil
}

// end removes the draft once err, of the whole change, is nil, or it is nobody's work. Else
// the error tells where it is.
func (d *draft) end(err error) error {
	switch {
	case d.path == "":
		return err
	case err == nil || !d.work:
		return errors.Join(err, os.RemoveAll(filepath.Dir(d.path)))
	}
	kept := "what you wrote is kept in " + d.path
	if a := adviceFor(err); a != nil {
		kept += "; " + a.do
	}
	return advice.New(err, kept)
}

// textCheck makes settings of what somebody wrote; nil: there is nothing to change.
type textCheck func(ctx context.Context, text []byte) (*layout.Settings, error)

// edit opens an editor over d, and as long as somebody wants to, again after a mistake. check
// takes what was written.
func (p *program) edit(ctx context.Context, d *draft, check textCheck) (*layout.Settings, error) {
	for shown := d.text; ; {
		failed := p.runEditor(ctx, d.path)
		if err := errors.Join(failed, d.read(shown)); err != nil {
			return nil, err
		}
		next, again, err := p.judge(ctx, d.text, check)
		if !again {
			return next, err
		}
		shown = append([]byte(errorMark+words.Line(shiftLine(err))+"\n"), d.text...)
		if err := d.write(shown); err != nil {
			return nil, err
		}
	}
}

// judge has text checked, and asks if it is to be edited again after a mistake.
func (p *program) judge(ctx context.Context, text []byte, check textCheck) (next *layout.Settings, again bool, err error) {
	ctx, stop := interruptible(ctx)
	defer stop()
	next, err = check(ctx, text)
	again = err != nil && ctx.Err() == nil && p.interactive() && p.ask(ctx, words.Line(err.Error())+"\nEdit again? [Y/n] ", true)
	return next, again, interrupted(ctx, err)
}
