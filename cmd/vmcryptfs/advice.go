package main

import (
	"errors"
	"unicode"
	"unicode/utf8"
)

// adviceError is an error with what to do about it, where that is known best. Its text is the
// error's alone: errors.go puts the two together.
type adviceError struct {
	err error
	do  string
}

func (e *adviceError) Error() string { return e.err.Error() }
func (e *adviceError) Unwrap() error { return e.err }

// sentences are what is wrong and what to do, in one line.
func sentences(err error) string {
	what := oneLine(err.Error())
	var known *adviceError
	if !errors.As(err, &known) {
		return what
	}
	return what + ". " + oneLine(upperFirst(known.do))
}

// upperFirst has a sentence begin as one does.
func upperFirst(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}
