package main

import (
	"fmt"
	"io"
	"time"

	"vmcryptfs/words"
)

const (
	// redrawEvery bounds how often a progress line is drawn on a terminal.
	redrawEvery = 200 * time.Millisecond
	// lineEvery is the pause between lines in a pipe, in a log or on a terminal unable to write
	// over a line.
	lineEvery = 30 * time.Second
	// leftAfter is how long work runs before progress estimates the remaining time.
	leftAfter = 3 * time.Second
)

// progress reports long work: on a terminal in one line, drawn again and again; elsewhere in a new
// line every lineEvery.
type progress struct {
	to     io.Writer
	redraw bool
	label  string
	total  int64 // in bytes; 0: not known
	now    func() time.Time
	start  time.Time
	drawn  time.Time
}

// progress starts a line. end removes the line.
func (p *program) progress(label string, total int64) *progress {
	return newProgress(p.stderr, obeys(p.stderr), label, total, time.Now)
}

func newProgress(to io.Writer, redraw bool, label string, total int64, now func() time.Time) *progress {
	return &progress{to: to, redraw: redraw, label: label, total: total, now: now, start: now(), drawn: now()}
}

// at tells how many bytes are done.
func (l *progress) at(done int64) {
	l.draw(func() string {
		if l.total <= 0 {
			return words.Size(done)
		}
		return fmt.Sprintf("%s of %s%s", percent(done, l.total), words.Size(l.total), l.left(done, l.total))
	})
}

// draw shows the result of text, unless draw has just shown another.
func (l *progress) draw(text func() string) {
	every := lineEvery
	if l.redraw {
		every = redrawEvery
	}
	now := l.now()
	if now.Sub(l.drawn) < every {
		return
	}
	l.drawn = now
	l.print(text())
}

// print tells text now.
func (l *progress) print(text string) {
	if l.redraw {
		fmt.Fprintf(l.to, "\r%s: %s\x1b[K", l.label, text)
	} else {
		fmt.Fprintf(l.to, "%s: %s\n", l.label, text)
	}
}

// note prints text in a lasting line of its own.
func (l *progress) note(text string) {
	l.end()
	fmt.Fprintf(l.to, "%s: %s\n", l.label, text)
}

// left estimates the time for the rest, as words at the end of a line.
func (l *progress) left(done, total int64) string {
	spent := l.now().Sub(l.start)
	if spent < leftAfter || done <= 0 || done >= total {
		return ""
	}
	rest := time.Duration(float64(spent) * float64(total-done) / float64(done))
	return ", " + words.Age(rest) + " left"
}

// end removes the line.
func (l *progress) end() {
	if l.redraw {
		fmt.Fprint(l.to, "\r\x1b[K")
	}
}

// percent is the share of done in total, at most 100: "42 %".
func percent(done, total int64) string {
	return fmt.Sprintf("%d %%", int(min(float64(done)/float64(total), 1)*100))
}
