// Package scan says what lies in a datastore that should not lie there: cleartext where policy and class
// say encrypted, leftovers of programs, halves of moves, files that no key opens, and places that do
// not hold.
//
// BACKING is read, and not changed: with a mount or beside one, by descriptors, with no symbolic
// link followed and, where that is permitted, no access time left. What a mount is just about to
// make or to remove is looked at again before it counts.
//
// Names, headers and records in BACKING are anybody's. Nothing in them is believed further than the
// worst that they may mean: without the key that proves the settings, a file is judged by the built-in
// rules and by the settings, and the stricter one decides. Memory, questions to key servers and the time
// for these are bounded; what goes beyond the bounds is counted, or makes the report incomplete.
//
// The package knows no FUSE, no socket and no command line.
package scan
