// Package backing finds out what the file system of a BACKING can do.
//
// The file system below a datastore may be anything that Linux mounts, and what one cannot do
// shows late: a FUSE file system that goes by paths loses a file whose first name was removed, an
// old network file system locks nothing. So Probe tries each ability (Ability) on small files of
// its own when a datastore is mounted. What a datastore cannot do without is Required: Report.Err
// names what of that is missing. For the rest there is another way, or Ability.Without says what
// follows.
//
// The package knows no datastore: it is told a directory, and imports nothing of the program.
package backing
