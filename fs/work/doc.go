// Package work runs the long works of one datastore, such as a rekey. A Runner promises:
//
//   - One work is under way at a time. Another work waits a moment, then is refused with ErrBusy.
//   - Everyone can see the work under way (Now): its kind, its beginning, its peer and the last
//     progress in a type of the work's own.
//   - Stop ends the work for a cause and returns after the last step of the work. The end of the
//     context given to Do also ends the work: the peer has left.
//   - No goroutine is started. A work that panics leaves the Runner free for the next.
//
// A Runner knows nothing of the steps of a work, of keys, of files, of mounts, of HTTP and of JSON
// streams. Everything is safe for concurrent use.
package work
