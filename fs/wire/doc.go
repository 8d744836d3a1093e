// Package wire has what every long work of a datastore tells, and is asked, in JSON: the
// paths that it shall do (Paths), the key that it is about (KeyName), the files that it did
// not do and why (Failure, Rest). One type serves the work itself, the control socket and
// the commands' --json.
//
// An error travels as a message and a reason, one word; who reads it gets an Error, in which
// errors.Is finds the error that the word stands for. Paths are bytes, as names on Linux
// are, and none is lost that is not UTF-8.
//
// A work's own progress and summary are in the work's package. This one knows nothing of
// sockets and opens no file. Values are as safe for concurrent use as their fields.
package wire
