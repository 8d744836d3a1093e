package fs

import (
	"context"
	"errors"
	"path"
	"strings"

	"vmcryptfs/fs/backing"

	"golang.org/x/sys/unix"
)

// sweep is the goroutine that removes temporaries of earlier mounts of this host.
type sweep struct {
	cancel context.CancelFunc // nil: not started
	done   chan struct{}
}

func (f *FS) startSweep() {
	ctx, cancel := context.WithCancel(context.Background())
	f.sweep = sweep{cancel, make(chan struct{})}
	go func() {
		defer close(f.sweep.done)
		if err := f.removeLeftovers(ctx); err != nil && !errors.Is(err, context.Canceled) {
			f.log.Warn("temporaries of an earlier mount may be left", "backing", f.store.Path(), "error", err)
		}
	}()
}

func (s *sweep) stop() {
	if s.cancel != nil {
		s.cancel()
		<-s.done
	}
}

// removeLeftovers removes this host's temporaries but those of this mount. Nobody else
// uses them: one process of a host serves a datastore. Those of other hosts stay.
func (f *FS) removeLeftovers(ctx context.Context) error {
	w := backing.Walk{Root: f.table.Root().FD(), Visit: func(dir int, at string, _ *backing.Entry) error {
		name := path.Base(at)
		if !strings.HasPrefix(name, f.temps.host) || strings.HasPrefix(name, f.temps.mount) {
			return nil
		}
		err := unix.Unlinkat(dir, name, 0)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			f.log.Warn("a temporary of an earlier mount stays", "file", at, "error", err)
			return nil
		}
		f.log.Info("removed a temporary of an earlier mount", "file", at)
		return nil
	}}
	return w.All(ctx)
}
