// Package words writes what people read: a message as one line, a name that no terminal
// obeys, a size, an age, a date, and a command that a shell takes as it is printed.
//
// The package promises the same text for the same value, in English, whatever the locale
// and the time zone of the host. It prints nothing, reads no clock, and knows nothing of
// mounts, keys and errors: what happened is for its callers to say. All functions are safe
// for concurrent use.
package words
