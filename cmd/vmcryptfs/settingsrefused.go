package main

import (
	"bufio"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/policy"
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
	before, after, err := rulesByPlace(root, old, next)
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
		refuses, err := newlyRefused(dir, at, before, after)
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

// rulesByPlace are the rules of old and of next for each place. A change of the rules leaves policies
// and places alone, and whoever asks may not have them (admin.Settings): they are those of the datastore
// in root.
func rulesByPlace(root string, old, next *layout.Settings) (before, after *layout.Places, err error) {
	store, err := datastore.Open(root, false)
	if err != nil {
		return nil, nil, err
	}
	defer store.Close()
	s := *store.Settings()
	s.Encrypt, s.Clear = old.Encrypt, old.Clear
	if before, err = layout.NewPlaces(&s); err != nil {
		return nil, nil, err
	}
	s.Encrypt, s.Clear = next.Encrypt, next.Clear
	after, err = layout.NewPlaces(&s)
	return before, after, err
}

// newlyRefused reports whether the file at a path, in the open directory dir, is in clear by right
// under the rules before, and not under those after. Cleartext that is adopted is served all the same.
func newlyRefused(dir int, at string, before, after *layout.Places) (bool, error) {
	in, name := path.Dir(at), path.Base(at)
	if policy.Adopts(after, in) {
		return false, nil
	}
	was, err := policy.ClassifyIn(before, dir, in, name)
	if err != nil {
		return false, err
	}
	is, err := policy.ClassifyIn(after, dir, in, name)
	if err != nil || was.Class == is.Class || is.Class == layout.Clear {
		return false, err
	}
	b, err := backing.OpenFound(dir, name)
	if err != nil || b == nil {
		return false, err
	}
	defer b.Close()
	form, err := backing.Judge(b, was)
	if err != nil || !form.IsClear() {
		return false, err
	}
	form, err = backing.Judge(b, is)
	return form == backing.Plain, err
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
