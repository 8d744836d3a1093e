// Package doctor finds out whether this host can use its key servers, and what will keep it
// from doing so. Check asks every server of a provider: name, connection, TLS, versions,
// operations, and one key that is fetched and tried. KnownKeys says which keys are in use
// here, so that there is one to try.
//
// A check changes nothing, at the servers and on disk: the key that is tried wraps what
// nobody keeps. Besides errors it finds what will be trouble: certificates and keys that end,
// operations that a server lacks, and a server that is a guest of the very datastore which
// needs it. What a host cannot see of its guests, guests.go tells.
//
// The package knows nothing of flags and pages: it gives values, and their JSON is that of
// "kms check --json". The process has to be hardened before (keys.HardenProcess), since a key
// comes into its memory. Functions are safe for concurrent use; values are not.
package doctor
