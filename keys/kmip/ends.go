package kmip

import (
	"sync"
	"time"
)

// ends are the dates on which keys will end, as last reported by the KMS.
type ends struct {
	mu   sync.Mutex
	keys map[string]time.Time // by identifier
}

// note records the first date from which a key wraps no new file (KMIP 1.4 §3.26, Protect Stop
// Date; §3.27, Deactivation Date).
func (e *ends) note(id string, a *attributes) {
	at := a.ends()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.keys == nil {
		e.keys = map[string]time.Time{}
	}
	if at.IsZero() {
		delete(e.keys, id)
		return
	}
	e.keys[id] = at
}

// ends returns the first date from which a key wraps no new file; zero: there is none.
func (a *attributes) ends() (first time.Time) {
	for _, date := range []string{protectStopDate, "Deactivation Date"} {
		if at := a.dates[date]; !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// KeyEnds returns the date from which a key will wrap no new file, as last reported by the KMS
// with the key or its state; zero: the KMS reported no end.
func (p *Provider) KeyEnds(id string) time.Time {
	p.ends.mu.Lock()
	defer p.ends.mu.Unlock()
	return p.ends.keys[id]
}
