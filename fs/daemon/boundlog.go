package daemon

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// The log is bounded: who may cause a line may cause it again and again.
const (
	// mostLines is how many lines a second are logged, as many again of errors, and mostAlike
	// how many with one message, so that a flood of some kinds leaves room for the others.
	mostLines, mostAlike = 20, 5
	// longestValue is the longest value in a line, in bytes; paths can be longer.
	longestValue = 1024
)

// boundLog passes on what a boundary permits.
type boundLog struct {
	slog.Handler
	boundary *boundary
}

// NewLog gives a log of lines to w, which is bounded (see mostLines). close logs how many lines
// were left out last, and ends the log.
func NewLog(w io.Writer) (log *slog.Logger, close func()) {
	h := slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: shorten})
	b := &boundary{tell: h, alike: make(map[string]int)}
	return slog.New(boundLog{h, b}), b.close
}

// shorten cuts long values.
func shorten(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindString && a.Value.Kind() != slog.KindAny {
		return a
	}
	if s := a.Value.String(); len(s) > longestValue {
		a.Value = slog.StringValue(s[:longestValue] + "…")
	}
	return a
}

// Handle is slog.Handler's.
func (l boundLog) Handle(ctx context.Context, r slog.Record) error {
	if !l.boundary.permits(r) {
		return nil
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs is slog.Handler's.
func (l boundLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return boundLog{l.Handler.WithAttrs(attrs), l.boundary}
}

// WithGroup is slog.Handler's.
func (l boundLog) WithGroup(name string) slog.Handler {
	return boundLog{l.Handler.WithGroup(name), l.boundary}
}

// boundary counts the lines of a second, and tells at its end how many were left out. Safe
// for concurrent use.
type boundary struct {
	tell slog.Handler // not bounded

	mu     sync.Mutex     // guards the rest
	second time.Time      // the beginning of the one that is counted
	lines  int            // logged in it, but for errors
	errors int            // those
	alike  map[string]int // of both, by message
	left   int            // left out and not told
	timer  *time.Timer    // tells it; nil: none is set
}

// permits reports whether a line may be logged, and counts it.
func (b *boundary) permits(r slog.Record) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if age := r.Time.Sub(b.second); age >= time.Second || age < 0 {
		b.second, b.lines, b.errors = r.Time, 0, 0
		clear(b.alike)
	}
	lines := &b.lines
	if r.Level >= slog.LevelError {
		lines = &b.errors
	}
	if *lines == mostLines || b.alike[r.Message] == mostAlike {
		b.left++
		if b.timer == nil {
			b.timer = time.AfterFunc(b.second.Add(time.Second).Sub(r.Time), b.tellLeft)
		}
		return false
	}
	*lines++
	b.alike[r.Message]++
	return true
}

// tellLeft logs how many lines were left out.
func (b *boundary) tellLeft() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer = nil
	if b.left == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "lines of the log were left out, since there were too many at once", 0)
	r.AddAttrs(slog.Int("lines", b.left))
	b.left = 0
	_ = b.tell.Handle(context.Background(), r) // nobody is there to be told
}

// close ends the timer. Nothing may be logged any more.
func (b *boundary) close() {
	b.mu.Lock()
	timer := b.timer
	b.mu.Unlock()
	if timer != nil && timer.Stop() {
		b.tellLeft()
	}
}
