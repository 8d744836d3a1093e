// Package work runs the long works of one datastore: a rekey is one. A Runner promises:
//
//   - One work is under way at a time. Another one waits a moment, then is refused with
//     ErrBusy.
//   - Everyone can see the work that is under way: what kind it is, since when, for whom,
//     and its last progress, in the work's own type (Now).
//   - Stop ends the work for a cause and returns after its last step. The end of the
//     context that Do was given ends the work too: who asked for it has left.
//   - No goroutine is started, and a work that panics leaves its place.
//
// A Runner knows nothing of what a work does, of keys, of files, of mounts, of HTTP and of
// JSON streams. Everything is safe for concurrent use.
package work
