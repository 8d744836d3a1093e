package fs

import (
	"context"
	"time"

	"vmcryptfs/fs/backing"
)

// TakeCensus walks the datastore until done or ctx ends, and calls each for every file:
// backing.Counter.Take. Safe for concurrent use, before Close.
func (f *FS) TakeCensus(ctx context.Context, each func(path, form, rule string)) (backing.Census, error) {
	return f.census.Take(ctx, each)
}

// Counted gives the census of KeepCensus, waiting up to patience for the first:
// backing.Counter.Counted.
func (f *FS) Counted(ctx context.Context, patience time.Duration) backing.Counted {
	return f.census.Counted(ctx, patience)
}

// KeepCensus keeps the census for Counted until ctx ends, before Close: backing.Counter.Keep.
func (f *FS) KeepCensus(ctx context.Context) { f.census.Keep(ctx) }
