package fs

import (
	"context"
	"errors"
	"path"

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

// removeLeftovers removes the temporaries of earlier mounts of this host. The temporaries of other
// hosts stay, and so does every file whose owner is unknown.
func (f *FS) removeLeftovers(ctx context.Context) error {
	w := backing.Walk{Root: f.table.Root().FD(), Visit: func(dir int, at string, _ *backing.Entry) error {
		name := path.Base(at)
		if f.ownerOf(name) != thisHost {
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
