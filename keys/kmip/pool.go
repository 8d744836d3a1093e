package kmip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// idleTime is how long an idle session is kept: shorter than the minutes after
	// which firewalls forget a connection without telling.
	idleTime = 45 * time.Second
	// fewerFor is how long fewer sessions are used after a server took no more of them.
	fewerFor = time.Minute
)

// A pool is the sessions to one server: no more at a time than the configuration allows,
// and fewer while the server takes fewer.
type pool struct {
	mu        sync.Mutex // guards what follows; never held over I/O
	most      int        // that may be in use, when not fewer
	fewer     int        // that may be in use until
	until     time.Time
	inUse     int           // places taken by enter
	opening   int           // sessions that are being opened
	connected int           // sessions that are open, in use or idle
	idle      []*session    // the last one is the freshest
	wake      chan struct{} // closed, and replaced, when any of that changes
	expire    *time.Timer
	closed    bool
	openers   sync.WaitGroup // goroutines that open a session
}

func (p *pool) start(most int) {
	p.most, p.wake = most, make(chan struct{})
	p.expire = time.AfterFunc(time.Hour, p.expireIdle)
	p.expire.Stop()
}

// do changes the pool and wakes who waits for that.
func (p *pool) do(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.wake)
	p.wake = make(chan struct{})
}

// take takes a place to use a session, if one is free, else gives what to wait for.
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

// popIdle gives an idle session, and otherwise what to wait for, and whether that can
// come: another session is open, or is being opened.
func (p *pool) popIdle() (idle *session, wake <-chan struct{}, others bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		idle, p.idle = p.idle[n-1], p.idle[:n-1]
	}
	return idle, p.wake, p.connected > 0 || p.opening > 0
}

// release keeps a whole session for the next request, or closes it.
func (p *pool) release(s *session) {
	p.do(func() {
		if p.closed || p.connected > p.most {
			s.close()
			p.connected--
			return
		}
		s.idle = time.Now()
		p.idle = append(p.idle, s)
		p.expire.Reset(idleTime)
	})
}

// drop closes a session that is not idle.
func (p *pool) drop(s *session) {
	s.close()
	p.do(func() { p.connected-- })
}

// dropIdle closes the idle sessions that are wanted to go, the oldest first.
func (p *pool) dropIdle(goes func(*session) bool) {
	p.do(func() {
		for len(p.idle) > 0 && goes(p.idle[0]) {
			p.idle[0].close()
			p.idle = p.idle[1:]
			p.connected--
		}
	})
}

// expireIdle closes sessions that have been idle for long.
func (p *pool) expireIdle() {
	p.dropIdle(func(s *session) bool { return time.Since(s.idle) >= idleTime })
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) > 0 && !p.closed {
		p.expire.Reset(idleTime)
	}
}

// useFewer keeps that the server takes no more sessions than it has.
func (p *pool) useFewer() {
	p.do(func() { p.fewer, p.until = max(1, p.connected), time.Now().Add(fewerFor) })
}

// An opened is what came of opening a session.
type opened struct {
	session *session
	err     error
}

// begin opens a session in the background. Its outcome is for who called, until abandoned
// is closed: then the session is kept for the next request.
func (p *pool) begin(ctx context.Context, open func(context.Context) (*session, error), abandoned <-chan struct{}) <-chan opened {
	outcome := make(chan opened)
	work := func() {
		s, err := open(ctx)
		p.do(func() {
			p.opening--
			if err == nil {
				p.connected++
			}
		})
		select {
		case outcome <- opened{s, err}:
		case <-abandoned:
			if err == nil {
				p.release(s)
			}
		}
	}
	p.do(func() {
		p.opening++
		if p.closed { // nobody waits for openers any more; who called does for this one
			go work()
			return
		}
		p.openers.Go(work)
	})
	return outcome
}

// connect opens a session. It takes one that becomes idle meanwhile if that comes first,
// and waits for one where the server takes no more connections: a server that serves some
// sessions is not ill because it refuses others, or leaves them waiting.
func (p *pool) connect(ctx context.Context, open func(context.Context) (*session, error)) (*session, error) {
	opening, stop := context.WithCancel(ctx)
	defer stop()
	abandoned := make(chan struct{})
	defer close(abandoned)
	outcome := p.begin(opening, open, abandoned)
	for {
		idle, wake, _ := p.popIdle()
		if idle != nil {
			return idle, nil
		}
		select {
		case <-wake:
		case o := <-outcome:
			if o.err == nil || !full(o.err) {
				return o.session, o.err
			}
			return p.await(ctx, o.err)
		}
	}
}

// await gives a session that others release, as long as there are others: without them,
// refusal is what is wrong with the server.
func (p *pool) await(ctx context.Context, refusal error) (*session, error) {
	for fewer := false; ; {
		idle, wake, others := p.popIdle()
		if idle != nil {
			return idle, nil
		}
		if !others {
			return nil, refusal
		}
		if !fewer && p.open() > 0 {
			fewer = true
			p.useFewer()
			continue
		}
		select {
		case <-wake:
		case <-ctx.Done():
			if p.open() == 0 {
				return nil, refusal
			}
			return nil, fmt.Errorf("%w, and it takes no more of them: %w", errBusy, refusal)
		}
	}
}

// open counts the sessions that are.
func (p *pool) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connected
}

// full tells an error that a server which has enough sessions may give to one more: no
// connection, one that ends in the midst of the handshake, or no answer in time.
func full(err error) bool {
	for _, e := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// end closes the idle sessions, and waits for those that are being opened; those in use end
// with their request.
func (p *pool) end() {
	p.mu.Lock()
	p.closed = true
	p.expire.Stop()
	p.mu.Unlock()
	p.dropIdle(func(*session) bool { return true })
	p.openers.Wait()
}
