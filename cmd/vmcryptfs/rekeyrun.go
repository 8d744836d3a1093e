package main

import (
	"context"
	"errors"
	"fmt"

	"vmcryptfs/advice"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/wire"
	"vmcryptfs/words"
)

// rekeyRun is a rekey command under way: the request, and the last progress for a rekey cut off.
type rekeyRun struct {
	root    string   // BACKING
	paths   []string // as given
	request rekey.Request
	keys    keyFlags
	line    *progress
	last    rekey.Event // Pass 0: the rekey has not begun
}

// do rekeys by the datastore's daemon or, without a mount, in this process.
func (r *rekeyRun) do(ctx context.Context) (rekey.Summary, error) {
	client, err := daemonOf(ctx, r.root)
	if err != nil {
		return rekey.Summary{}, err
	}
	if client != nil {
		return client.Rekey(ctx, r.request, r.told)
	}
	sum, err := rekeyHere(ctx, r.root, r.request, r.keys, func(e rekey.Event) error {
		r.told(e)
		return nil
	})
	sum.Rest = sum.AsTold()
	return sum, err
}

// told shows the progress e. A new key is shown at once, with the command for going on with the
// key, since the rekey may end without time for a message.
func (r *rekeyRun) told(p rekey.Event) {
	if first := r.last.Pass == 0; first && p.Created {
		defer func() {
			r.line.note(fmt.Sprintf("key %s was made at provider %s; should this end early, go on with: %s",
				words.Printable(p.Identifier), words.Printable(p.Provider), r.goOn(p.KeyName, p.Current)))
		}()
	}
	r.last = p
	r.line.draw(func() string {
		text := fmt.Sprintf("%d files", p.Done)
		if p.Total > 0 {
			text = fmt.Sprintf("%s of %d files%s", percent(p.Done, p.Total), p.Total, r.line.left(p.Done, p.Total))
		}
		if p.Pass > 1 {
			text = fmt.Sprintf("pass %d, %s", p.Pass, text)
		}
		return fmt.Sprintf("%s; %d rekeyed, %d failed", text, p.Rekeyed, p.Failed)
	})
}

// failure explains the error of a rekey, and adds the command for continuing the rekey without
// making another key.
func (r *rekeyRun) failure(ctx context.Context, sum rekey.Summary, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, wire.ErrRequest) {
		return advice.Usage(err)
	}
	key, created, current := r.last.KeyName, r.last.Created, r.last.Current
	if sum.Identifier != "" {
		key, created, current = sum.KeyName, sum.Created, sum.Current
	}
	unused := created && !current && sum.Rekeyed+r.last.Rekeyed == 0
	err = fmt.Errorf("rekey %s: %w", r.root, interrupted(ctx, err))
	switch {
	case unused:
		err = fmt.Errorf("%w (key %q was made at provider %q and is not used yet)", err, key.Identifier, key.Provider)
	case ctx.Err() == nil && sum.Passes == 0 && r.last.Pass == 0: // nothing to go on with
		return err
	}
	do := "every file opens; go on with: "
	if _, remains := errors.AsType[*wire.IncompleteError](err); remains {
		do = "mend what remains, then go on with: "
	}
	return advice.New(err, do+r.goOn(key, current))
}

// goOn gives the command for the rest with key. current: key is already the datastore's current
// key. Without an identifier there is no key yet, and the command is the same as before.
func (r *rekeyRun) goOn(key wire.KeyName, current bool) string {
	line := append([]string{"vmcryptfs", "rekey"}, r.paths...)
	switch {
	case current:
	case r.request.New && key.Identifier != "":
		line = append(line, "--to", key.Identifier)
	case r.request.New:
		line = append(line, "--new")
	case r.request.To != "":
		line = append(line, "--to", r.request.To)
	}
	for _, option := range []struct{ name, value string }{
		{"--add", r.request.Add}, {"--drop", r.request.Drop},
	} {
		if option.value != "" {
			line = append(line, option.name, option.value)
		}
	}
	return words.Command(append(line, r.keys.words()...))
}
