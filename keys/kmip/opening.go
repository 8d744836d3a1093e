package kmip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// A server sees the end of a session a moment after this host. The pauses, each twice as long as
// the one before, give the server time to accept another session in place of the ended one.
const (
	firstAgain = 10 * time.Millisecond
	lastAgain  = 640 * time.Millisecond
)

// An opened is the outcome of opening a session.
type opened struct {
	session *session
	err     error
}

// begin opens a session in the background, and returns nil while there is no room for another.
// The outcome goes to the caller, until abandoned is closed: then the session is kept for the
// next request.
func (p *pool) begin(ctx context.Context, open func(context.Context) (*session, error), abandoned <-chan struct{}) <-chan opened {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.connected+p.opening >= p.most {
		return nil
	}
	p.opening++
	outcome := make(chan opened)
	work := func() {
		s, err := p.openFor(ctx, open, abandoned)
		p.do(func() {
			p.opening--
			if err == nil {
				p.connected++
			}
		})
		select {
		case outcome <- opened{s, err}:
		case <-abandoned:
			p.keep(opened{s, err})
		}
	}
	if p.closed { // nobody waits for openers any more; the caller waits for this one
		go work()
	} else {
		p.openers.Go(work)
	}
	return outcome
}

// openFor opens a session in ctx's time. The opening ends with ctx until abandoned is closed, and
// with the pool after that.
func (p *pool) openFor(ctx context.Context, open func(context.Context) (*session, error), abandoned <-chan struct{}) (*session, error) {
	deadline, _ := ctx.Deadline()
	opening, stop := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer stop()
	defer context.AfterFunc(ctx, func() {
		select {
		case <-abandoned:
		default:
			if errors.Is(ctx.Err(), context.Canceled) { // else opening's own time is over
				stop()
			}
		}
	})()
	defer context.AfterFunc(p.ended, func() {
		select {
		case <-abandoned:
			stop()
		case <-opening.Done():
		}
	})()
	return open(opening)
}

// keep takes the outcome of an opening that nobody waits for.
func (p *pool) keep(o opened) {
	switch {
	case o.err == nil:
		p.release(o.session)
	case full(o.err) && p.open() > 0:
		p.useFewer()
	}
}

// connect opens a session, or takes a session that becomes idle first. Where the server accepts
// no more connections, connect waits for an idle session: a server that serves some sessions is
// not ill for refusing others or leaving others waiting. When an open session is lost meanwhile,
// the server is asked again, and may accept another session in its place.
func (p *pool) connect(ctx context.Context, open func(context.Context) (*session, error)) (*session, error) {
	for pause := firstAgain; ; pause *= 2 {
		dropped := p.drops()
		s, err := p.openOrIdle(ctx, open)
		if err == nil || !full(err) {
			return s, err
		}
		s, err = p.await(ctx, err)
		if err == nil || pause > lastAgain || p.drops() == dropped {
			return s, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// openOrIdle opens a session, or returns one that becomes idle first.
func (p *pool) openOrIdle(ctx context.Context, open func(context.Context) (*session, error)) (*session, error) {
	abandoned := make(chan struct{})
	defer close(abandoned)
	var outcome <-chan opened
	done := ctx.Done()
	for {
		idle, wake, _ := p.popIdle()
		if idle != nil {
			return idle, nil
		}
		if outcome == nil {
			outcome = p.begin(ctx, open, abandoned)
		}
		select {
		case <-wake:
		case o := <-outcome:
			return o.session, o.err
		case <-done:
			if outcome == nil {
				return nil, fmt.Errorf("%w: %w", errBusy, ctx.Err())
			}
			done = nil // the opening ends, too
		}
	}
}

// await returns a session released by another request, as long as other sessions exist. Without
// other sessions, refusal is the fault of the server.
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

// full reports whether a server with enough sessions may answer one more by such an error: no
// connection, an end in the midst of the handshake, or no answer in time.
func full(err error) bool {
	for _, e := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
