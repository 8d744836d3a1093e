// Package ability finds out what the file system of a BACKING can do.
//
// The file system below a datastore may be anything mountable on Linux, and lacks show late: a FUSE
// file system that goes by paths loses a file whose first name was removed; an old network file
// system locks nothing. So Probe tries each Ability on small files of its own when a datastore is
// mounted. Required reports whether every datastore needs an Ability; Report.Err names the required
// ones that are missing. Each other Ability has a replacement, or Ability.Without says what
// follows.
//
// The package knows no datastore, and imports nothing of the program but byname: the caller names a
// directory. Package fs/backing knows what the names of a BACKING are.
package ability
