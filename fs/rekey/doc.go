// Package rekey puts files of a datastore under another KEK: the same DEK in other
// lockers, so that no data is read or written and files may be in use. Run needs no
// mount; a mounted datastore is rekeyed by its daemon, which holds the datastore's lock.
//
// A file's header alone changes, by cryptfile.UpdateHeader: cut off at any point, the
// file opens under the old KEK or the new one. One file at a time is in work, under
// cryptfile's LockHeader. Run walks the tree until a whole pass finds nothing to do, so
// it can be cut off and run again, and what was made meanwhile under the old KEK is not
// left out; while one file remains, its Summary says so.
//
// On the whole datastore the new KEK becomes current before the first file is touched:
// the settings are sealed again, under both (design §5).
//
// Not reached are copies: snapshots and backups of BACKING keep the old wraps, and on a
// copy-on-write file system so may blocks that are free again. The time of last
// modification of a file changes, on purpose: a backup that goes by it must take the new
// header along before the old KEK is destroyed.
//
// Functions are safe for concurrent use; two Runs over one datastore with different
// targets undo one another, and the caller keeps them apart.
package rekey
