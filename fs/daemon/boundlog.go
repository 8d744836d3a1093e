package daemon

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// The log is bounded: a caller able to cause one line may cause the same line again and again.
const (
	// mostLines is how many lines are logged in a second below the level of errors, and as many
	// errors. mostAlike is how many lines with one message are logged in a second, so that a flood
	// of some messages leaves room for others.
	mostLines, mostAlike = 20, 5
	// longestValue is the longest value in a line, in bytes; paths can be longer.
	longestValue = 1024
)

// boundLog passes on the lines permitted by the boundary.
type boundLog struct {
	slog.Handler
	boundary *boundary
}

// NewLog gives a log of text lines to w, at most mostLines a second. log is safe for concurrent
// use. close logs how many lines were left out last. close comes after the last line.
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

// boundary counts the lines of each second. At the end of a second, boundary logs how many lines
// were left out. A boundary is safe for concurrent use.
type boundary struct {
	tell slog.Handler // not bounded

	mu     sync.Mutex     // guards the rest
	second time.Time      // the beginning of the counted second
	lines  int            // logged in second, errors excepted
	errors int            // logged in second, errors alone
	alike  map[string]int // lines and errors of second, by message
	left   int            // lines left out and not reported
	timer  *time.Timer    // runs tellLeft; nil: no timer is set
}

// permits reports whether a line may be logged, and counts the line.
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
