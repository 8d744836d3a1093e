// Package powerloss is a file system for tests, to be BACKING or to hold the image of a disk: the
// file system forgets everything not synced. Cut returns the remains after a possible power loss.
//
// Content is lost as in package faultfile: by sectors of 512 bytes, lengths in order. A name
// made, changed or removed is so for good when the name's directory has been synced. Before that,
// changes of one directory come to disk in their order, changes of several directories
// independently, and each change (a rename) whole. With Options.Journal any sync brings all names
// to disk, as in ext4.
//
// Owner, mode and times survive a power loss, synced or not. There are no symbolic links and no
// extended attributes.
//
// Every file is served with direct I/O, so the kernel keeps nothing back, and a write carries its
// synchronous flag.
package powerloss
