package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"vmcryptfs/fs/admin/mounts"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// settings shows or edits a datastore's rules.
func (p *program) settings(ctx context.Context, args []string) error {
	const usage = "show|edit BACKING"
	var k keyFlags
	f := p.flags("settings")
	asJSON := f.Bool("json", false, "show: print JSON")
	k.add(f)
	args, err := p.parse(f, args, usage, 2, 2)
	if err != nil {
		return err
	}
	backing, _, err := mounts.Backing(args[1]) // also of a mount
	if err != nil {
		return err
	}
	switch args[0] {
	case "show":
		return p.showSettings(backing, *asJSON)
	case "edit":
		return p.editSettings(ctx, backing, k)
	}
	return usagef("settings: unknown command %q; usage: vmcryptfs settings %s", args[0], usage)
}

// showSettings prints the settings as they stand; no key is asked for.
func (p *program) showSettings(backing string, asJSON bool) error {
	store, err := datastore.Open(backing, false)
	if err != nil {
		return err
	}
	defer store.Close()
	s := store.Settings()
	if !asJSON {
		_, err := p.stdout.Write(s.Encode())
		return err
	}
	return p.printJSON(struct {
		Format   int      `json:"format"`
		ID       string   `json:"id"`
		Provider string   `json:"provider"`
		KEK      string   `json:"kek"`
		Serial   uint64   `json:"serial"`
		Encrypt  []string `json:"encrypt"`
		Clear    []string `json:"clear"`
	}{s.Format, s.ID.String(), s.Provider, s.KEK, s.Serial, append([]string{}, s.Encrypt...), append([]string{}, s.Clear...)})
}

// editSettings opens an editor over the settings, checks and seals them.
func (p *program) editSettings(ctx context.Context, backing string, k keyFlags) error {
	store, err := datastore.Open(backing, true)
	if errors.Is(err, datastore.ErrBusy) {
		return fmt.Errorf("%w: unmount it, then edit", err)
	}
	if err != nil {
		return err
	}
	defer store.Close()
	if err := keys.HardenProcess(); err != nil {
		return fmt.Errorf("protect the memory for keys: %w", err)
	}
	source, err := openKeys(ctx, k, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer source.close()
	// Before the editor: what was changed without the key is not to be sealed, and a
	// KMS that is away is no surprise for after the work.
	if err := errors.Join(store.Trust("", "", false), store.Verify(ctx, source.cache)); err != nil {
		if note := source.note(); note != "" {
			err = fmt.Errorf("%w: %s", err, note)
		}
		return fmt.Errorf("settings of %s: %w", backing, err)
	}
	old := store.Settings()
	next, err := p.edit(ctx, old)
	if err != nil || next == nil {
		return err
	}
	ref := keys.Ref{Provider: old.Provider, ID: old.KEK}
	if err := source.cache.Use(ctx, ref, func(kek *keys.KEK) error { return store.Change(*next, kek) }); err != nil {
		return fmt.Errorf("seal settings of %s: %w", backing, err)
	}
	fmt.Fprintf(p.stdout, "settings of %s changed, serial %d\n", backing, store.Settings().Serial)
	return nil
}

// edit gives the edited settings, or nil when nothing was changed.
func (p *program) edit(ctx context.Context, old *layout.Settings) (*layout.Settings, error) {
	// An editor may put a new file in the old one's place: in a directory where others may
	// write, one of them could be faster, and his settings would be sealed.
	dir, err := os.MkdirTemp("", "vmcryptfs-settings-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, datastore.SettingsName)
	if err := os.WriteFile(temp, old.Encode(), 0o600); err != nil {
		return nil, err
	}
	for {
		if err := p.runEditor(ctx, temp); err != nil {
			return nil, err
		}
		text, err := os.ReadFile(temp)
		if err != nil {
			return nil, err
		}
		if string(text) == string(old.Encode()) {
			fmt.Fprintln(p.stdout, "settings unchanged")
			return nil, nil
		}
		next, err := checkEdited(text, old)
		if err == nil {
			return next, nil
		}
		if !p.editAgain(err) {
			return nil, usagef("settings unchanged: %w", err)
		}
	}
}

// checkEdited parses an edited text and keeps what is not for an editor.
func checkEdited(text []byte, old *layout.Settings) (*layout.Settings, error) {
	next, err := layout.ParseBody(text)
	if err != nil {
		return nil, err
	}
	if next.ID != old.ID || next.Provider != old.Provider || next.KEK != old.KEK {
		return nil, errors.New("id, provider and kek are not edited here: they say whose the datastore is")
	}
	if _, err := layout.NewRules(next.Encrypt, next.Clear); err != nil {
		return nil, err
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

// editAgain asks a person; without a terminal nobody answers.
func (p *program) editAgain(problem error) bool {
	if !isTerminal(p.stdin) || !isTerminal(p.stderr) {
		return false
	}
	fmt.Fprintf(p.stderr, "%s\nEdit again? [Y/n] ", oneLine(problem.Error()))
	answer, err := bufio.NewReader(p.stdin).ReadString('\n')
	return err == nil && !strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "n")
}
