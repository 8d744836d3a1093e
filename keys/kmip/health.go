package kmip

import (
	"sync"
	"time"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

// staleAfter is how old an answer may be that a server is called ok for.
const staleAfter = 3 * time.Minute

// A health is what is known of a server. Safe for concurrent use.
type health struct {
	mu        sync.Mutex // guards what follows; a leaf
	version   string
	lastError string
	down      bool
	checked   time.Time // when it last answered, or did not; zero: never asked
	since     time.Time // when it was first seen to be down, or not down
	failed    time.Time // when it was last seen to be down; zero: never
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

// now is what can be said of the server, whose address this is.
func (h *health) now(address string) keys.ServerHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	told := keys.ServerHealth{
		Address: address, OK: !h.down && !h.checked.IsZero(), State: keys.ServerUnknown, Since: h.since,
		Version: h.version, LastError: h.lastError, Checked: h.checked,
	}
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
}
