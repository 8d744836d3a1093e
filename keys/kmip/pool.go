package kmip

import (
	"context"
	"sync"
	"time"
)

const (
	// idleTime is how long an idle session is kept: shorter than the minutes after which
	// firewalls silently forget a connection.
	idleTime = 45 * time.Second
	// fewerFor is how long fewer sessions are used after a server accepted no more.
	fewerFor = time.Minute
)

// A pool is the sessions to one server: no more at a time than the configuration allows,
// and fewer while the server takes fewer.
type pool struct {
	mu        sync.Mutex // guards the fields below; never held over I/O
	most      int        // limit of sessions in use, when not fewer
	fewer     int        // limit of sessions in use until
	until     time.Time
	inUse     int           // places taken by enter
	opening   int           // sessions being opened
	connected int           // open sessions, in use or idle
	dropped   int           // sessions ended under a request, ever
	idle      []*session    // the last one is the freshest
	wake      chan struct{} // closed, and replaced, at any change of the above
	expire    *time.Timer
	closed    bool
	openers   sync.WaitGroup // goroutines opening a session

	ended context.Context // ends with the pool
	over  context.CancelFunc
}

func (p *pool) start(most int) {
	p.most, p.wake = most, make(chan struct{})
	p.expire = time.AfterFunc(time.Hour, p.expireIdle)
	p.expire.Stop()
	p.ended, p.over = context.WithCancel(context.Background())
}

// do changes the pool and wakes all goroutines waiting for a change.
func (p *pool) do(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.wake)
	p.wake = make(chan struct{})
}

// take takes a place to use a session if one is free, else returns the channel to wait for.
func (p *pool) take() (taken bool, wake <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	most := p.most
	if time.Now().Before(p.until) {
		most = p.fewer
	}
	if p.inUse >= most {
		return false, p.wake
	}
	p.inUse++
	return true, nil
}

// leave gives a place back.
func (p *pool) leave() { p.do(func() { p.inUse-- }) }

// popIdle returns an idle session, or the channel to wait for. others reports whether a session
// may become idle: another session is open, or is being opened.
func (p *pool) popIdle() (idle *session, wake <-chan struct{}, others bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		idle, p.idle = p.idle[n-1], p.idle[:n-1]
	}
	return idle, p.wake, p.connected > 0 || p.opening > 0
}

// release keeps a whole session for the next request, or closes the session.
func (p *pool) release(s *session) {
	p.do(func() {
		if p.closed || p.connected > p.most {
			s.close()
			p.connected--
			return
		}
		s.idle = time.Now()
		if len(p.idle) == 0 { // else the timer runs for an older session
			p.expire.Reset(idleTime)
		}
		p.idle = append(p.idle, s)
	})
}

// drop closes a session that is not idle.
func (p *pool) drop(s *session) {
	s.close()
	p.do(func() {
		p.connected--
		p.dropped++
	})
}

// dropIdle closes the idle sessions selected by goes, the oldest first.
func (p *pool) dropIdle(goes func(*session) bool) {
	p.do(func() {
		for len(p.idle) > 0 && goes(p.idle[0]) {
			p.idle[0].close()
			p.idle = p.idle[1:]
			p.connected--
		}
	})
}

// expireIdle closes sessions idle for idleTime.
func (p *pool) expireIdle() {
	p.dropIdle(func(s *session) bool { return time.Since(s.idle) >= idleTime })
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) > 0 && !p.closed {
		p.expire.Reset(idleTime - time.Since(p.idle[0].idle))
	}
}

// useFewer limits the sessions for a while to the number open now: the server accepts no more.
func (p *pool) useFewer() {
	p.do(func() { p.fewer, p.until = max(1, p.connected), time.Now().Add(fewerFor) })
}

// open counts the open sessions.
func (p *pool) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connected
}

// drops counts the sessions dropped so far.
func (p *pool) drops() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}

// end closes the idle sessions, and waits for sessions being opened; sessions in use end with
// their request.
func (p *pool) end() {
	p.mu.Lock()
	p.closed = true
	p.expire.Stop()
	p.mu.Unlock()
	p.over()
	p.dropIdle(func(*session) bool { return true })
	p.openers.Wait()
}
