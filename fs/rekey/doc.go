// Package rekey puts files of a datastore under another KEK: the same DEK in other lockers, so
// that no data is read or written and files may be in use. Run needs no mount. A mounted datastore
// is rekeyed by its daemon, which holds the datastore's lock.
//
// A rekey changes only the header of a file, by cryptfile.UpdateHeader: cut off at any point, the
// file opens under the old KEK or the new one. One file is in work at a time, under cryptfile's
// LockHeader. Run walks the tree until a whole pass finds nothing to do. So a rekey that was cut
// off can be run again, and a pass also finds files made under the old KEK during the pass before.
// While one file remains, the Summary is not complete.
//
// A rekey of the whole datastore makes the new KEK current before the first file is touched: the
// settings are sealed again, under both KEKs (design §5).
//
// Run does not reach copies. Snapshots and backups of BACKING keep the old wraps, and so may free
// blocks of a copy-on-write file system. The modification time of a file changes on purpose: a
// backup that goes by modification time must save the new header before the old KEK is destroyed.
//
// Functions are safe for concurrent use. Two Runs over one datastore with different targets undo
// each other, so the caller must run one at a time.
package rekey
