package scan

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Bounds of what is asked of key servers. Headers can name as many KEKs as somebody likes.
const (
	mostKeys = 1000             // KEKs that are asked for
	keyTime  = 5 * time.Second  // for one question
	keysTime = 30 * time.Second // for all
)

// asker asks the configured providers for KEKs, each once.
type asker struct {
	cache   *keys.Cache // nil, or without a provider: nobody can be asked
	answers map[wire.KeyName]answer
	silent  map[string]error // providers that gave no answer, which are not asked again
	left    time.Duration    // of keysTime
	missed  int64            // lockers whose KEK nobody answered for
}

func newAsker(cache *keys.Cache) *asker {
	return &asker{cache: cache, answers: make(map[wire.KeyName]answer), silent: make(map[string]error), left: keysTime}
}

// answer is what is known of a KEK.
type answer struct {
	why  string // it opens nothing; empty: it opens, or nobody knows
	open bool   // nobody knows
}

// mayAsk reports whether there is anybody to ask.
func (a *asker) mayAsk() bool { return a.cache != nil && len(a.cache.Providers()) > 0 }

// ask is the answer about a KEK.
func (a *asker) ask(ctx context.Context, name wire.KeyName) answer {
	if known, ok := a.answers[name]; ok {
		return known
	}
	p := a.cache.Provider(name.Provider)
	if p == nil {
		return answer{why: fmt.Sprintf("key %q is of provider %q, which is not configured", name.Identifier, name.Provider)}
	}
	if a.silent[name.Provider] != nil || len(a.answers) == mostKeys || a.left <= 0 {
		return answer{open: true}
	}
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, min(keyTime, a.left))
	defer cancel()
	state, err := p.State(ctx, name.Identifier)
	a.left -= time.Since(begun)
	known := answer{}
	switch {
	case errors.Is(err, keys.ErrNotFound):
		known.why = fmt.Sprintf("provider %q does not know its key %q", name.Provider, name.Identifier)
	case errors.Is(err, keys.ErrUnreachable) || ctx.Err() != nil:
		a.silent[name.Provider] = err
		known.open = true
	case err != nil:
		known.open = true
	case !state.Opens():
		known.why = fmt.Sprintf("key %q of provider %q is %s", name.Identifier, name.Provider, state)
	}
	a.answers[name] = known
	return known
}

// lacks says why a KEK that the header h names opens nothing; empty: each of them opens, or nobody
// knows. A locker of an unknown wrap may open the file.
func (a *asker) lacks(ctx context.Context, h *layout.Header) (why string) {
	if !a.mayAsk() {
		return ""
	}
	others := false
	for i := range h.Lockers {
		l := &h.Lockers[i]
		if l.Wrap == 0 {
			continue
		}
		known := answer{open: true}
		if l.Wrap == layout.WrapKMIP {
			if known = a.ask(ctx, wire.KeyName{Provider: l.Provider, Identifier: l.KeyID}); known.open {
				a.missed++
			}
		}
		switch {
		case known.why == "":
			others = true
		case why == "":
			why = known.why
		}
	}
	switch {
	case why == "" && !others:
		return "the header names no key"
	case why == "":
		return ""
	case others:
		return why + "; another of the file's keys may open it"
	}
	return why + "; no other key opens the file"
}

// tell notes in r what could not be asked.
func (a *asker) tell(r *Report) {
	switch {
	case !a.mayAsk():
		r.note("no key server is configured here: whether the keys of the files are known was not asked, and no such file is counted")
	case a.missed > 0:
		r.Complete = false
		r.note(fmt.Sprintf("for %d keys in headers of files no key server gave an answer in time: vmcryptfs kms check tells why", a.missed))
	}
}
