// Package powerloss is a file system for tests, to be BACKING or to hold the image of a
// disk: it forgets what was not synced. Cut gives what a power loss may leave of it.
//
// Content is lost as package faultfile has it: by sectors of 512 bytes, lengths in order.
// A name that was made, changed or removed is there for good when its directory has been
// synced. Before that, changes of one directory come to disk in their order, those of
// several independently, and each change (a rename) whole. With Options.Journal any sync
// brings all names to disk, as ext4 does.
//
// Owner, mode and times are kept by a power loss, synced or not. There are no symbolic
// links and no extended attributes.
//
// Every file is served with direct I/O, so the kernel keeps nothing back, and a write says
// whether it is synchronous.
package powerloss
