package daemon

import (
	"fmt"
	"sync"
	"time"
)

// probe makes a call that may hang. One call runs at a time; a second caller waits for the running
// call.
type probe[T any] struct {
	mu      sync.Mutex
	running *probing[T] // nil: none
}

type probing[T any] struct {
	done  chan struct{}
	value T // after done, and so is err
	err   error
}

// ask gives the result of call, or of the running call. Beyond limit, ask returns ErrSilent and
// the call's goroutine runs on until the call ends.
func (p *probe[T]) ask(limit time.Duration, call func() (T, error)) (T, error) {
	r := p.start(call)
	select {
	case <-r.done:
		return r.value, r.err
	case <-time.After(limit):
		var none T
		return none, fmt.Errorf("%w within %v", ErrSilent, limit)
	}
}

func (p *probe[T]) start(call func() (T, error)) *probing[T] {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil {
		return p.running
	}
	r := &probing[T]{done: make(chan struct{})}
	p.running = r
	go func() {
		r.value, r.err = call()
		p.mu.Lock()
		p.running = nil
		p.mu.Unlock()
		close(r.done)
	}()
	return r
}
