package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lockedText is the output of a log.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// leftOut adds up the numbers of lines left out, as logged.
func leftOut(t *testing.T, text string) (lines int) {
	t.Helper()
	for _, found := range regexp.MustCompile(`left out.* lines=(\d+)`).FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		lines += n
	}
	return lines
}

// TestBoundLog: floods are bounded for each message and in all, the number of lines left out is
// logged, and the next second counts anew.
func TestBoundLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedText
		log, close := NewLog(&out)
		defer close()
		for range 1000 {
			log.Warn("one kind")
		}
		log.Error("another kind")
		if n := strings.Count(out.String(), "one kind"); n != mostAlike {
			t.Errorf("%d lines of a flood, want %d", n, mostAlike)
		}
		if !strings.Contains(out.String(), "another kind") {
			t.Error("a flood of one kind left no room for another")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := leftOut(t, out.String()); n != 1000-mostAlike {
			t.Errorf("%d lines told as left out, want %d", n, 1000-mostAlike)
		}
		before := strings.Count(out.String(), "\n")
		log = log.With("file", "a").WithGroup("g") // the same log
		for i := range 1000 {
			log.Warn(fmt.Sprint("kind ", i))
		}
		log.Error("an error among them")
		if n := strings.Count(out.String(), "\n") - before; n != mostLines+1 || !strings.Contains(out.String(), "an error among them") {
			t.Errorf("%d lines in the next second, want %d and the error", n, mostLines)
		}
		time.Sleep(time.Hour)
		log.Info("quiet again")
		if want := 2000 - mostAlike - mostLines; !strings.Contains(out.String(), "quiet again") || leftOut(t, out.String()) != want {
			t.Errorf("%d lines left out in all, want %d, and the last line:\n%s", leftOut(t, out.String()), want, out.String())
		}
	})
}

// TestBoundLogEnds: the number of lines left out is logged also at an end within the second.
func TestBoundLogEnds(t *testing.T) {
	var out lockedText
	log, close := NewLog(&out)
	var loggers sync.WaitGroup
	for range 8 {
		loggers.Go(func() {
			for range 100 {
				log.Warn("flood")
			}
		})
	}
	loggers.Wait()
	close()
	if n := leftOut(t, out.String()) + strings.Count(out.String(), "msg=flood"); n != 800 {
		t.Errorf("%d lines logged or told as left out, want 800:\n%s", n, out.String())
	}
}

// TestLongValues: a path of any length takes a bounded part of a line.
func TestLongValues(t *testing.T) {
	var out lockedText
	log, close := NewLog(&out)
	defer close()
	long := strings.Repeat("\x1b", 4096)
	log.Warn("refused", "file", long, "error", errors.New(long), "group", slog.GroupValue(slog.String("in", long)))
	if n := len(out.String()); n > 3*4*longestValue+200 {
		t.Errorf("a line of %d bytes", n)
	}
	log.Warn("refused", "file", "short", "n", 7)
	if !strings.Contains(out.String(), "file=short n=7\n") {
		t.Errorf("short values were changed: %s", out.String())
	}
}
