package main

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// mostRefused are how many files that would be refused are named.
const mostRefused = 5

// refusedError says that settings would have the mount refuse files that it serves.
type refusedError struct {
	count int64
	names []string // the first ones, below BACKING
}

// Error says which, and what can be done.
func (r *refusedError) Error() string {
	names := strings.Join(r.names, ", ")
	if n := r.count - int64(len(r.names)); n > 0 {
		names += fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%d files lie in clear under names that would be encrypted, and the mount would refuse to open them (EACCES): %s", r.count, names)
}

// findRefused looks for files in backing that the mount serves in clear under old, and would
// refuse under next; nil: there are none. Only those whose class changes are opened.
func (p *program) findRefused(ctx context.Context, backing string, old, next *layout.Settings) (*refusedError, error) {
	before, err := layout.NewRules(old.Encrypt, old.Clear)
	if err != nil {
		return nil, err
	}
	after, err := layout.NewRules(next.Encrypt, next.Clear)
	if err != nil {
		return nil, err
	}
	refused := &refusedError{}
	seen := 0
	progress := p.progress("looking for files that would be refused", 0)
	defer progress.end()
	err = filepath.WalkDir(backing, func(path string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil && e.IsDir() && layout.Reserved(e.Name()) {
			return filepath.SkipDir
		}
		if err != nil || !e.Type().IsRegular() || layout.Reserved(e.Name()) {
			return err
		}
		seen++
		progress.draw(func() string { return fmt.Sprintf("%d files", seen) })
		was, is := before.Classify(e.Name()).Class, after.Classify(e.Name()).Class
		if was == is || is == layout.Clear {
			return nil
		}
		refuses, err := newlyRefused(path, was, is)
		if err != nil || !refuses {
			return err
		}
		if refused.count++; len(refused.names) < mostRefused {
			refused.names = append(refused.names, strings.TrimPrefix(path, backing+"/"))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for files that would be refused: %w", err)
	}
	if refused.count == 0 {
		return nil, nil
	}
	return refused, nil
}

// newlyRefused tells of a file that it is in clear by right in the class was, and would not be
// in the class is.
func newlyRefused(path string, was, is layout.Class) (bool, error) {
	b, st, err := openBacking(path)
	if err != nil {
		return false, err
	}
	b.Close()
	if st.Size == 0 {
		return false, nil
	}
	if was != layout.Clear { // only a descriptor then was in clear by right
		plain, err := liesInClear(path, was)
		if err != nil || plain {
			return false, err
		}
	}
	return liesInClear(path, is)
}

// agree asks if files may be refused. Without a terminal nobody answers, and yes must have
// been said before: the error is a *refusedError.
func (p *program) agree(ctx context.Context, backing string, old, next *layout.Settings, yes bool) error {
	refused, err := p.findRefused(ctx, backing, old, next)
	if err != nil || refused == nil {
		return err
	}
	fix := "copy each over itself through the mount before (cp a a.new && mv a.new a), under a name that is encrypted"
	if yes {
		fmt.Fprintf(p.stderr, "%s\n", words.Line(refused.Error()))
		return nil
	}
	if p.interactive() {
		if p.ask(ctx, words.Line(refused.Error())+"\nChange the settings all the same? [y/N] ", false) {
			return nil
		}
		return fmt.Errorf("settings unchanged: %w", refused)
	}
	return fmt.Errorf("settings unchanged: %w; %s, or --yes", refused, fix)
}

// interactive tells if somebody is there to answer.
func (p *program) interactive() bool { return isTerminal(p.stdin) && isTerminal(p.stderr) }

// ask puts a question of printable lines; no answer, or none that is understood, is the one of
// otherwise. The end of the input and that of ctx answer no.
func (p *program) ask(ctx context.Context, question string, otherwise bool) bool {
	fmt.Fprint(p.stderr, question)
	if !p.awaitInput(ctx) {
		return false
	}
	answer, err := bufio.NewReader(p.stdin).ReadString('\n')
	if err != nil {
		return false
	}
	switch answer = strings.ToLower(strings.TrimSpace(answer)); {
	case strings.HasPrefix(answer, "y"):
		return true
	case strings.HasPrefix(answer, "n"):
		return false
	}
	return otherwise
}

// awaitInput waits until there is something to read, its end too, and tells if there is.
func (p *program) awaitInput(ctx context.Context) bool {
	const pause = 100 // ms between two looks at ctx
	for ctx.Err() == nil {
		ready := []unix.PollFd{{Fd: int32(p.stdin.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(ready, pause); n > 0 || err != nil && err != unix.EINTR {
			return true
		}
	}
	return false
}
