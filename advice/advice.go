package advice

// Error is an error together with what to do about it. The place that finds the
// error knows that best.
type Error struct {
	Err error
	Do  string // a sentence without its full stop, or a command to be copied
}

// New adds to err what to do about it.
func New(err error, do string) error { return &Error{err, do} }

// Error gives the text of the error alone. Whoever shows the error adds do to it.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the error without its advice.
func (e *Error) Unwrap() error { return e.Err }
