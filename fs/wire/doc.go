// Package wire holds the JSON common to all long works of a datastore: the requested paths
// (Paths), the key in question (KeyName), and the files not done, each with a reason (Failure,
// Rest). One type serves the work itself, the control socket and --json of the commands.
//
// An error travels as a message and a reason, one word. The receiver gets an Error, in which
// errors.Is finds the error of the word. Paths are bytes, as names on Linux are; every path
// arrives unchanged, UTF-8 or not.
//
// The progress and the summary of one work are in the package of the work. Package wire knows
// nothing of sockets and opens no file. Values are as safe for concurrent use as their fields.
package wire
