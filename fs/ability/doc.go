// Package ability finds out what the file system of a BACKING can do.
//
// The file system below a datastore may be anything that Linux mounts, and what a file system
// cannot do shows late: a FUSE file system that goes by paths loses a file whose first name was
// removed, an old network file system locks nothing. So Probe tries each Ability on small files
// of its own when a datastore is mounted. Required lists what a datastore cannot do without:
// Report.Err names what of that is missing. For each other Ability there is another way, or
// Ability.Without says what follows.
//
// The package knows no datastore: its caller names a directory. It imports nothing of the
// program. What the names of a BACKING are is the business of fs/backing.
package ability
