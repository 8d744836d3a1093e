package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/layout"
	"vmcryptfs/words"
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
# While the datastore is mounted, what you save counts for files that are opened or made after.
#
# format, id, provider, kek and serial are not for an editor: vmcryptfs rekey changes the key.
# Policies, and the directories that have them, are changed by vmcryptfs policy, and not shown.

`

// errorMark begins a line that tells what was wrong with the text the last time.
const errorMark = "#! "

// editSettings changes the settings of the datastore at backing in an editor.
func (p *program) editSettings(ctx context.Context, backing string, o settingsFlags) error {
	var d draft
	return d.end(p.changeSettings(ctx, backing, o, p.edited(&d, o.yes)))
}

// edited is the change that a person makes to d in an editor.
func (p *program) edited(d *draft, yes bool) change {
	return func(ctx context.Context, backing string, old *layout.Settings) (*layout.Settings, error) {
		if err := d.open(settingsText(backing, old)); err != nil {
			return nil, err
		}
		return p.edit(ctx, d, func(ctx context.Context, text []byte) (*layout.Settings, error) {
			next, err := checkEdited(text, old)
			if err != nil || sameRules(old, next) {
				return nil, err
			}
			return next, p.agree(ctx, backing, old, next, yes)
		})
	}
}

// settingsText is what the editor shows.
func settingsText(backing string, s *layout.Settings) []byte {
	text := fmt.Appendf(nil, settingsTemplate, words.Printable(backing))
	rules := *s
	rules.Moves, rules.Policies, rules.Places = nil, nil, nil
	text = append(text, bytes.TrimRight(rules.Encode(), "\n")...)
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

// mistaken is an error in what somebody wrote in an editor.
func mistaken(err error) error {
	return advice.New(advice.Usagef("settings unchanged: %w", err), "edit the settings again, without that")
}

// checkEdited parses an edited text and keeps what is not for an editor.
func checkEdited(text []byte, old *layout.Settings) (*layout.Settings, error) {
	next, err := layout.ParseBody(text)
	if err != nil {
		return nil, mistaken(err)
	}
	if next.ID != old.ID || next.Provider != old.Provider || next.KEK != old.KEK {
		return nil, mistaken(errors.New("id, provider and kek are not edited here: they say whose the datastore is"))
	}
	if _, err := layout.NewRules(next.Encrypt, next.Clear); err != nil {
		return nil, mistaken(err)
	}
	if len(next.Moves)+len(next.Policies)+len(next.Places) > 0 {
		return nil, mistaken(errors.New("moves, policies and places are not edited here: vmcryptfs policy changes them"))
	}
	next.Moves, next.Policies, next.Places = old.Moves, old.Policies, old.Places
	next.Serial = old.Serial // whatever was written: it says what next was made from
	return next, nil
}

// runEditor waits for $VISUAL, $EDITOR or vi. What is typed there is the editor's business, as
// ^C is. SIGTERM and the terminal's end are taken up when the editor has ended: it may save.
func (p *program) runEditor(ctx context.Context, path string) error {
	typed := make(chan os.Signal, 1) // not ignored: the editor would inherit that
	signal.Notify(typed, unix.SIGINT, unix.SIGQUIT)
	defer signal.Stop(typed)
	ctx, stop := untilSignal(ctx, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	editor := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"), "vi")
	// The variable may hold arguments, so a shell reads it, as git and crontab do. What the
	// shell traps does not end it, and is as ever for the editor.
	cmd := exec.Command("/bin/sh", "-c", "trap : INT QUIT\n"+editor+` "$1"`, editor, path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.stdin, p.stdout.file, p.stderr
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("editor %s: %w: settings unchanged", editor, err)
	}
	return nil
}
