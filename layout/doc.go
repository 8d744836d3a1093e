// Package layout holds the pure rules of a vmcryptfs datastore: which names are encrypted, how a
// VMDK descriptor is recognised, the header of an encrypted file, logical and stored lengths, and
// the settings file. Names and bytes in, decisions out: no I/O, no clock, no randomness, no log,
// and no import from this module. All functions are safe for concurrent use.
//
// The on-disk format is version 1 of docs/on-disk-format.md. Every byte from a file is hostile
// input and gives an error, never a panic.
package layout
