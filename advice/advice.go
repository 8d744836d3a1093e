package advice

// Error is an error with advice for mending the cause. The finder of the error knows the best
// advice.
type Error struct {
	Err error
	Do  string // a sentence without the full stop, or a command to be copied
}

// New adds the advice do to err.
func New(err error, do string) error { return &Error{err, do} }

// Error gives the text of the error alone. Package main adds Do.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the error without the advice.
func (e *Error) Unwrap() error { return e.Err }
