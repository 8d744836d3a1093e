// Package backing says what a name of BACKING is.
//
// A name may be a directory, or a file that is encrypted, in clear, damaged, or of no form yet.
// The mount, the census, info, export, init, rekey and the inventory of keys all ask here: Judge
// for the form that a file has under a verdict, ReadHeader for its header, Examine for all that
// can be told without a key. A header that is read beside a running rekey is right, or its read
// waits; Walk visits every name once and follows no link; an open leaves no access time where
// that is permitted.
//
// The package opens files for reading, and changes nothing. It knows no key, no FUSE and no node,
// and no settings: its callers bring the verdict of a name.
package backing
