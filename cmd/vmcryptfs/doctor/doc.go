// Package doctor finds out whether this host can use the key servers, and warns of future trouble.
// Check asks every server of a provider: name, connection, TLS, versions, operations, and one key,
// fetched and tried. KnownKeys gives the keys in use on this host, so Check has a key to try.
//
// A check changes nothing, at the servers and on disk: the tried key wraps a throw-away DEK.
// Warnings are about certificates and keys near the end, missing operations, and a server in a
// guest of the very datastore whose keys the server holds. The head of guests.go names the limits.
//
// The package knows nothing of flags and pages: results are values with the JSON of "kms check
// --json". The process must be hardened before (keys.HardenProcess), since a key enters memory.
// Functions are safe for concurrent use; values are not.
package doctor
