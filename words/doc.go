// Package words writes text for people: a message as one line, a name without effect on a
// terminal, a size, an age, a date, and a command ready for a shell.
//
// The package promises the same text for the same value, in English, whatever the locale and the
// time zone of the host. The package prints nothing, reads no clock, and knows nothing of mounts,
// keys and errors: the events are for callers to describe. All functions are safe for concurrent
// use.
package words
