package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/layout"
)

// settingsTemplate is put above the settings in the editor; their file has no comments.
const settingsTemplate = `# Settings of the datastore in %s
# What you save is checked, and sealed with the datastore's key. These comments are not kept.
#
# encrypt and clear are lists of patterns for names, as in a shell: * ? [a-z]. Case does not
# matter, and only the last part of a path is matched. They count before the built-in rules:
# vmcryptfs classify NAME says what those are, and --settings BACKING what all together say.
#
# encrypt: files that are encrypted whatever the built-in rules say. It wins over clear. For
# example, logs that guests write secrets to:
#   encrypt = ["console-*.log", "*.bak"]
#
# clear: files that lie in clear, for everybody to read who can read BACKING. For example,
# installation images and logs with a date in their name:
#   clear = ["*.iso", "*.log-*"]
#
# A file that lies in clear under a name that becomes encrypted is refused until it is copied
# (you are asked). One that is encrypted under a name that becomes clear stays so, and works.
#
# format, id, provider, kek and serial are not for an editor: vmcryptfs rekey changes the key.

`

// errorMark begins a line that tells what was wrong with the text the last time.
const errorMark = "#! "

// edited is the change that a person makes in an editor.
func (p *program) edited(yes bool) change {
	return func(ctx context.Context, backing string, old *layout.Settings) (*layout.Settings, error) {
		// An editor may put a new file in the old one's place: in a directory where others may
		// write, one of them could be faster, and his settings would be sealed.
		dir, err := os.MkdirTemp("", "vmcryptfs-settings-*")
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, datastore.SettingsName)
		next, err := p.edit(ctx, path, settingsText(backing, old), func(text []byte) (*layout.Settings, error) {
			next, err := checkEdited(text, old)
			if err != nil || sameRules(old, next) {
				return nil, err
			}
			return next, p.agree(backing, old, next, yes)
		})
		var bad *editError
		if errors.As(err, &bad) { // the work is not lost
			return nil, fmt.Errorf("%w; what you wrote is kept in %s", err, path)
		}
		return next, errors.Join(err, os.RemoveAll(dir))
	}
}

// settingsText is what the editor shows.
func settingsText(backing string, s *layout.Settings) []byte {
	text := fmt.Appendf(nil, settingsTemplate, printable(backing))
	text = append(text, bytes.TrimRight(s.Encode(), "\n")...)
	text = append(text, '\n')
	for _, of := range []struct {
		key  string
		list []string
	}{{"encrypt", s.Encrypt}, {"clear", s.Clear}} {
		if len(of.list) == 0 {
			text = fmt.Appendf(text, "%s = []\n", of.key)
		}
	}
	return text
}

// editError says why an edited text is not taken.
type editError struct{ err error }

func (e *editError) Error() string { return e.err.Error() }
func (e *editError) Unwrap() error { return e.err }

// edit opens an editor over text in the file at path, and as long as somebody wants to, again
// after a mistake. check takes what was written.
func (p *program) edit(ctx context.Context, path string, text []byte, check func([]byte) (*layout.Settings, error)) (*layout.Settings, error) {
	for {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
		failed := p.runEditor(ctx, path)
		written, err := os.ReadFile(path)
		switch {
		case failed != nil && bytes.Equal(written, text):
			return nil, failed
		case failed != nil:
			return nil, &editError{failed}
		case err != nil:
			return nil, err
		}
		text = withoutErrors(written)
		next, err := check(text)
		if err == nil {
			return next, nil
		}
		if !p.interactive() || !p.ask(oneLine(err.Error())+"\nEdit again? [Y/n] ", true) {
			return nil, &editError{err}
		}
		text = append([]byte(errorMark+oneLine(shiftLine(err))+"\n"), text...)
	}
}

// withoutErrors takes the lines away that edit has put in.
func withoutErrors(text []byte) []byte {
	var kept []byte
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte(errorMark)) {
			kept = append(kept, line...)
		}
	}
	return kept
}

// shiftLine is the text of err for a file that has one more line above.
func shiftLine(err error) string {
	if at, ok := errors.AsType[*layout.SettingsError](err); ok && at.Line > 0 {
		below := *at
		below.Line++
		return below.Error()
	}
	return err.Error()
}

// checkEdited parses an edited text and keeps what is not for an editor.
func checkEdited(text []byte, old *layout.Settings) (*layout.Settings, error) {
	next, err := layout.ParseBody(text)
	if err != nil {
		return nil, usagef("settings unchanged: %w", err)
	}
	if next.ID != old.ID || next.Provider != old.Provider || next.KEK != old.KEK {
		return nil, usagef("settings unchanged: id, provider and kek are not edited here: they say whose the datastore is")
	}
	if _, err := layout.NewRules(next.Encrypt, next.Clear); err != nil {
		return nil, usagef("settings unchanged: %w", err)
	}
	return next, nil
}

// runEditor waits for $VISUAL, $EDITOR or vi.
func (p *program) runEditor(ctx context.Context, path string) error {
	editor := "vi"
	for _, name := range []string{"VISUAL", "EDITOR"} {
		if value := os.Getenv(name); value != "" {
			editor = value
			break
		}
	}
	// The variable may hold arguments, so a shell reads it, as git and crontab do.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", editor+` "$1"`, editor, path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.stdin, p.stdout.file, p.stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("editor %s: %w: settings unchanged", editor, err)
	}
	return nil
}
