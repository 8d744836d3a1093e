package wire

import "fmt"

// MaxFailures bounds the number of failures in a Rest.
const MaxFailures = 1000

// Rest ends the summary of every work, and lists the files left to do.
type Rest struct {
	Complete bool  `json:"complete"` // nothing remains
	Failed   int64 `json:"failed"`   // files and directories that remain
	// Failures are the first MaxFailures of the failed ones. In a stream, each failure has a line
	// instead.
	Failures []Failure `json:"failures"`
}

// Add counts one more failure: the file or directory at path.
func (r *Rest) Add(path string, why error) {
	r.Failed++
	if len(r.Failures) < MaxFailures {
		r.Failures = append(r.Failures, Failure{path, why})
	}
}

// Remaining gives r. Every summary with a Rest has the method.
func (r *Rest) Remaining() *Rest { return r }

// AsTold gives r as a reader of its JSON sees r: errors are *Error, and the list of failures is
// not nil. So a command reports a work of its own process and a work of a daemon alike.
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

// IncompleteError says that files are left to do.
type IncompleteError struct {
	Failed int64
	Errs   []error // the errors of some of the files
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
