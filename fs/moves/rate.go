package moves

import (
	"context"
	"sync"
	"time"
)

// limiter holds all moves of one request together to a rate.
type limiter struct {
	rate int64 // bytes a second; 0: no limit

	mu   sync.Mutex
	next time.Time // when the bytes so far are due
}

// wait waits until n more bytes keep to the rate, or until stop is closed or ctx ends.
func (l *limiter) wait(ctx context.Context, stop <-chan struct{}, n int64) error {
	if l == nil || l.rate <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(l.due(n, time.Now()))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-stop:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// due is how long n more bytes have to wait at the time now.
func (l *limiter) due(n int64, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next.Before(now) {
		l.next = now
	}
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	return l.next.Sub(now)
}
