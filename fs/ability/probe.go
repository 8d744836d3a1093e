package ability

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// limit bounds a probe; steps not begun by then stay untried. (A call without an answer from
// BACKING keeps the caller waiting, here as in a served datastore.)
const limit = 20 * time.Second

// Probe finds what the file system of the directory dir can do, within 20 s. Probe works in a
// hidden directory in dir, named temporary + "check-..."; temporary begins the names of all
// temporaries of this host. Probe removes that directory again, and the leftovers of earlier
// probes. An error: the probe could not work at all. Probes of one dir may run concurrently.
func Probe(ctx context.Context, dir int, temporary string) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	prefix := temporary + "check-" // no hexadecimal digits, which follow in other temporaries' names
	removeLeftovers(dir, prefix)
	r := untried(dir)
	p, err := newPlace(dir, prefix)
	if err != nil {
		return nil, err
	}
	for _, s := range steps() {
		if ctx.Err() != nil {
			break
		}
		detail, err := s.try(p)
		r.Abilities[s.ability] = found(detail, err)
		if err := p.clean(); err != nil {
			return nil, errors.Join(err, p.remove())
		}
	}
	if err := p.remove(); err != nil {
		return nil, err
	}
	return r, r.complete(ctx)
}

// Glance is Probe of a directory where nothing may be written: only the type is found.
func Glance(dir int) *Report { return untried(dir) }

func untried(dir int) *Report {
	r := &Report{FileSystem: typeOf(dir), Abilities: make(map[Ability]Finding)}
	for _, a := range All() {
		r.Abilities[a] = Finding{Answer: Untried}
	}
	return r
}

// complete is an error if the time was over before all required abilities were tried.
func (r *Report) complete(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	for _, a := range required() {
		if r.Abilities[a].Answer == Untried {
			return fmt.Errorf("BACKING is too slow to be tested (%s and more was not tried): %w", a, context.Cause(ctx))
		}
	}
	return nil
}

// found is the finding of a step's result. A lack of room or of descriptors says nothing of the
// file system: untried.
func found(detail string, err error) Finding {
	for _, passing := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.ENOMEM, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, passing) {
			return Finding{Untried, err.Error()}
		}
	}
	if err != nil {
		return Finding{No, err.Error()}
	}
	return Finding{Yes, detail}
}

// typeOf is the file system's type as /proc/self/mountinfo names it, or "unknown".
func typeOf(dir int) string {
	var st unix.Statx_t
	if unix.Statx(dir, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st) != nil {
		return "unknown"
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "unknown"
	}
	id := fmt.Sprintf("%d ", st.Mnt_id)
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, id) {
			continue
		}
		if _, after, ok := strings.Cut(line, " - "); ok {
			kind, _, _ := strings.Cut(after, " ")
			return kind
		}
	}
	return "unknown"
}
