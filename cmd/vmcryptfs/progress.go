package main

import (
	"fmt"
	"os"
	"time"
)

// redrawEvery bounds how often a progress line is drawn.
const redrawEvery = 200 * time.Millisecond

// progress is a line on a terminal about work that takes long; nothing in a pipe.
type progress struct {
	to    *os.File // nil: nobody looks
	label string
	total int64 // in bytes; 0: not known
	drawn time.Time
}

// progress starts a line; end removes it.
func (p *program) progress(label string, total int64) *progress {
	line := &progress{label: label, total: total, drawn: time.Now()}
	if isTerminal(p.stderr) {
		line.to = p.stderr
	}
	return line
}

// at tells how many bytes are done.
func (l *progress) at(done int64) {
	if l.to == nil || time.Since(l.drawn) < redrawEvery {
		return
	}
	l.drawn = time.Now()
	if l.total > 0 {
		fmt.Fprintf(l.to, "\r%s: %d %% of %s\x1b[K", l.label, done*100/l.total, sizeText(l.total))
	} else {
		fmt.Fprintf(l.to, "\r%s: %s\x1b[K", l.label, sizeText(done))
	}
}

// end removes the line.
func (l *progress) end() {
	if l.to != nil {
		fmt.Fprint(l.to, "\r\x1b[K")
	}
}

// sizeText is n bytes for people: "1.5 GiB".
func sizeText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(binaryPrefixes)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, binaryPrefixes[unit])
}

const binaryPrefixes = "KMGTPE"

// ageText is a duration for people, in its two greatest units.
func ageText(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}
