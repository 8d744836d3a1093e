package main

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// mostRefused is how many refused files a message names.
const mostRefused = 5

// refusedError means settings under which the mount would refuse files now served.
type refusedError struct {
	count int64
	names []string // the first ones by the alphabet, below BACKING
}

// Error names the first files, and the remedies.
func (r *refusedError) Error() string {
	names := strings.Join(r.names, ", ")
	if n := r.count - int64(len(r.names)); n > 0 {
		names += fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%d files lie in clear under names that would be encrypted, and the mount would refuse to open them (EACCES): %s", r.count, names)
}

// add counts the file at a path below BACKING.
func (r *refusedError) add(at string) {
	r.count++
	i, _ := slices.BinarySearch(r.names, at)
	r.names = slices.Insert(r.names, i, at)
	r.names = r.names[:min(len(r.names), mostRefused)]
}

// findRefused looks for files in root, a BACKING, served in clear under old and refused under
// next. nil: there are none. Only files with a change of class are opened.
func (p *program) findRefused(ctx context.Context, root string, old, next *layout.Settings) (*refusedError, error) {
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
	err = regularFiles(ctx, root, func(dir int, name, at string) error {
		if layout.Reserved(name) {
			return nil
		}
		seen++
		progress.draw(func() string { return fmt.Sprintf("%d files", seen) })
		was, is := before.Classify(name).Class, after.Classify(name).Class
		if was == is || is == layout.Clear {
			return nil
		}
		refuses, err := newlyRefused(dir, name, was, is)
		if refuses {
			refused.add(at)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for files that would be refused: %w", err)
	}
	if refused.count == 0 {
		return nil, nil
	}
	return refused, nil
}

// newlyRefused reports whether the file name in dir is in clear by right in the class was, and not
// in the class is.
func newlyRefused(dir int, name string, was, is layout.Class) (bool, error) {
	b, err := backing.OpenFound(dir, name)
	if err != nil || b == nil {
		return false, err
	}
	defer b.Close()
	before, err := backing.Judge(b, layout.Verdict{Class: was})
	if err != nil || !before.IsClear() {
		return false, err
	}
	after, err := backing.Judge(b, layout.Verdict{Class: is})
	return after == backing.Plain, err
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

// interactive reports whether a person can answer.
func (p *program) interactive() bool { return isTerminal(p.stdin) && isTerminal(p.stderr) }

// ask asks a question of printable lines. No answer, or an unknown one, counts as otherwise. The
// end of the input and the end of ctx count as no.
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

// awaitInput waits for input, and reports whether there is some. The end of the input counts as
// input.
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
