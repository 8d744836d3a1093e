package advice

import "fmt"

// UsageError is a mistake in flags, arguments or configuration, for the user to correct. The exit
// code is 2.
type UsageError struct{ Err error }

// Usage makes err a UsageError.
func Usage(err error) error { return &UsageError{err} }

// Usagef gives a UsageError of a text, as fmt.Errorf.
func Usagef(format string, args ...any) error { return Usage(fmt.Errorf(format, args...)) }

// Error gives the text of the mistake.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap gives the error caused by the mistake.
func (e *UsageError) Unwrap() error { return e.Err }
