// Package doctor finds out whether this host can use its key servers, and warns of future trouble.
// Check asks every server of a provider: name, connection, TLS, versions, operations, and one key,
// fetched and tried. KnownKeys gives the keys in use on this host, so that Check has a key to try.
//
// A check changes nothing, at the servers and on disk: the tried key wraps a DEK that is thrown
// away. Warnings are about certificates and keys that end soon, operations that a server lacks,
// and a server that is a guest of the very datastore whose keys it serves. guests.go lists the
// guests that a host cannot recognise.
//
// The package knows nothing of flags and pages: results are values, and their JSON is that of "kms
// check --json". The process must be hardened before (keys.HardenProcess), since a key enters its
// memory. Functions are safe for concurrent use; values are not.
package doctor
