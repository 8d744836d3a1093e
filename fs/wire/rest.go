package wire

import "fmt"

// MaxFailures bounds the failures that a Rest lists.
const MaxFailures = 1000

// Rest is the end of every work's summary: what is left to do.
type Rest struct {
	Complete bool  `json:"complete"` // nothing remains
	Failed   int64 `json:"failed"`   // files and directories that remain
	// Failures are the first MaxFailures of these. A stream has lines of their own for them.
	Failures []Failure `json:"failures"`
}

// Add counts one more failure of what is at path.
func (r *Rest) Add(path string, why error) {
	r.Failed++
	if len(r.Failures) < MaxFailures {
		r.Failures = append(r.Failures, Failure{path, why})
	}
}

// Remaining gives r, which is part of a summary of whatever work.
func (r *Rest) Remaining() *Rest { return r }

// AsTold gives r with the errors that a reader of its JSON has, and a list of failures that
// is not nil: a command does the same about a work in its own process and one in a daemon.
func (r Rest) AsTold() Rest {
	told := make([]Failure, len(r.Failures))
	for i, f := range r.Failures {
		told[i] = Failure{f.Path, NewError(f.Err)}
	}
	r.Failures = told
	return r
}

// Err is nil if r is Complete, else an IncompleteError.
func (r *Rest) Err() error {
	if r.Complete {
		return nil
	}
	why := make([]error, len(r.Failures))
	for i, f := range r.Failures {
		why[i] = f.Err
	}
	return &IncompleteError{Failed: r.Failed, Errs: why}
}

// IncompleteError says that files remain.
type IncompleteError struct {
	Failed int64
	Errs   []error // why, of some of them
}

// Error is one line.
func (e *IncompleteError) Error() string {
	s := fmt.Sprintf("not done: %d files or directories remain", e.Failed)
	if len(e.Errs) > 0 {
		s += fmt.Sprintf(", the first one for: %v", e.Errs[0])
	}
	return s
}

// Unwrap gives Errs.
func (e *IncompleteError) Unwrap() []error { return e.Errs }
