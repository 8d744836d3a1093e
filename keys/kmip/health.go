package kmip

import (
	"slices"
	"sync"
	"time"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

const (
	// mostDenials bounds the remembered keys not given by a server.
	mostDenials = 8
	// deniedFor is how long a denial is remembered; afterwards the server is asked again.
	deniedFor = time.Hour
)

// staleAfter is the greatest age of an answer for a server to be called ok.
const staleAfter = 3 * time.Minute

// A health is what is known of a server. Safe for concurrent use.
type health struct {
	mu        sync.Mutex // guards the fields below; a leaf
	version   string
	lastError string
	down      bool
	checked   time.Time       // last answer, or last lack of an answer; zero: never asked
	since     time.Time       // first seen to be down, or not down
	failed    time.Time       // last seen to be down; zero: never
	denials   []keys.KeyError // keys not given, the latest first
}

// see records whether the server is down, and reports whether that is news. A server never asked
// is not known to be down. Called with mu held.
func (h *health) see(down bool) (changed bool) {
	now := time.Now()
	changed = down != h.down
	if changed || h.checked.IsZero() {
		h.since = now
	}
	h.down, h.checked = down, now
	if down {
		h.failed = now
	}
	return changed
}

// well records an answer of the server.
func (h *health) well(version wire.Version) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.see(false)
	h.version, h.lastError = version.String(), ""
}

// failing records why the server did not serve a request; suspect means no answer at all. failing
// reports whether the suspicion is new: then the caller must start a probe.
func (h *health) failing(reason string, suspect bool) (isNew bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastError = reason
	return h.see(suspect) && suspect
}

// suspect reports whether the server failed and has not answered since.
func (h *health) suspect() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// lastFailed orders servers: a server that never failed comes first.
func (h *health) lastFailed() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

// lastChecked returns when the server last answered, or failed to; zero: never asked.
func (h *health) lastChecked() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.checked
}

// gave forgets the denial of a key.
func (h *health) gave(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget(key)
}

// denied records why the server did not give a key, and reports whether the reason is new.
func (h *health) denied(key string, why *Error) (isNew bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := why.Operation + ": " + why.Kind.Error()
	if why.Reason != "" {
		text += ": " + why.Reason
	}
	isNew = h.forget(key) != text
	h.denials = append([]keys.KeyError{{Key: key, Error: text, Since: time.Now()}}, h.denials[:min(len(h.denials), mostDenials-1)]...)
	return isNew
}

// forget removes a key and expired keys from the denials, and returns the last error about the
// key. Called with mu held.
func (h *health) forget(key string) (said string) {
	h.denials = slices.DeleteFunc(h.denials, func(d keys.KeyError) bool {
		if d.Key == key {
			said = d.Error
		}
		return d.Key == key || time.Since(d.Since) > deniedFor
	})
	return said
}

// lastDenied is when the server last did not give a key; zero: not of late.
func (h *health) lastDenied(key string) (when time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.denials {
		if d.Key == key && time.Since(d.Since) <= deniedFor {
			when = d.Since
		}
	}
	return when
}

// now returns the present condition of the server with this address.
func (h *health) now(address string) keys.ServerHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	told := keys.ServerHealth{
		Address: address, OK: !h.down && !h.checked.IsZero(), State: keys.ServerUnknown, Since: h.since,
		Version: h.version, LastError: h.lastError, Checked: h.checked,
	}
	h.forget("") // expired denials
	told.KeyErrors = slices.Clone(h.denials)
	switch {
	case h.checked.IsZero():
	case time.Since(h.checked) > staleAfter:
		told.Since = h.checked
	case h.down:
		told.State = keys.ServerDown
	default:
		told.State = keys.ServerOK
	}
	return told
}

// inherit takes over from's knowledge of the same server.
func (h *health) inherit(from *health) {
	from.mu.Lock()
	defer from.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version, h.lastError, h.down = from.version, from.lastError, from.down
	h.checked, h.since, h.failed = from.checked, from.since, from.failed
	h.denials = slices.Clone(from.denials)
}
