package kmip

import (
	"slices"
	"sync"
	"time"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

const (
	// mostDenials bounds how many keys are remembered that a server did not give.
	mostDenials = 8
	// deniedFor is how long that is remembered, so that the server is asked again.
	deniedFor = time.Hour
)

// staleAfter is how old an answer may be that a server is called ok for.
const staleAfter = 3 * time.Minute

// A health is what is known of a server. Safe for concurrent use.
type health struct {
	mu        sync.Mutex // guards what follows; a leaf
	version   string
	lastError string
	down      bool
	checked   time.Time       // when it last answered, or did not; zero: never asked
	since     time.Time       // when it was first seen to be down, or not down
	failed    time.Time       // when it was last seen to be down; zero: never
	denials   []keys.KeyError // of keys that it did not give, the latest first
}

// see keeps whether the server is down. It tells if that is another thing than was known;
// a server that nobody asked is not known to be down. Called with mu held.
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

// well keeps that the server answered.
func (h *health) well(version wire.Version) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.see(false)
	h.version, h.lastError = version.String(), ""
}

// failing keeps why the server did not serve a request; suspect says that it does not
// answer at all. It tells if that is new: then somebody must probe it.
func (h *health) failing(reason string, suspect bool) (isNew bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastError = reason
	return h.see(suspect) && suspect
}

// suspect tells a server that failed and was not seen to answer since.
func (h *health) suspect() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// lastFailed orders servers: one that never failed comes first.
func (h *health) lastFailed() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

// lastChecked is when the server last answered, or did not; zero: it was never asked.
func (h *health) lastChecked() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.checked
}

// gave forgets that the server did not give a key.
func (h *health) gave(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget(key)
}

// denied keeps why the server did not give a key, and tells if that is new.
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

// forget drops a key from the denials, and what is too old, and gives what was said of it.
// Called with mu held.
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

// now is what can be said of the server, whose address this is.
func (h *health) now(address string) keys.ServerHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	told := keys.ServerHealth{
		Address: address, OK: !h.down && !h.checked.IsZero(), State: keys.ServerUnknown, Since: h.since,
		Version: h.version, LastError: h.lastError, Checked: h.checked,
	}
	h.forget("") // what is too old
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

// inherit takes over what another one knows of the same server.
func (h *health) inherit(from *health) {
	from.mu.Lock()
	defer from.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version, h.lastError, h.down = from.version, from.lastError, from.down
	h.checked, h.since, h.failed = from.checked, from.since, from.failed
	h.denials = slices.Clone(from.denials)
}
