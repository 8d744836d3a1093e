// Package keys is what a key is in vmcryptfs: locked memory for KEKs and DEKs,
// wrapping a DEK for a header, the seal of the settings, the cache of KEKs, and the
// Provider interface that a key server's client implements.
//
// Key material lives in a Secret: pages that are locked, left out of core files and
// of forked children, between guard pages, zeroed when given back. A program calls
// HardenProcess before its first key, which covers what the standard library copies
// to the Go heap for the time of a call (derived keys, AES schedules, HMAC states).
// No error, log line or format verb shows material. A KEK or DEK used after Wipe
// panics: HKDF of nothing would be a key that anyone can derive.
//
// The constructions are those of the on-disk format, version 1: wrap 1, slot MAC, key
// check value, and the seal of the settings. Names and identifiers that come from a
// header or from settings are untrusted until a MAC is checked: they are escaped in
// errors, and a look-up that fails is remembered for seconds in bounded memory.
//
// An error says which of three things is wrong: the key cannot be had now (ErrNoKey,
// with a reason that is its own sentinel), or it is no key of ours (ErrKeyLength), or
// what is under it was changed (ErrTampered, ErrSeal). It is never answered with
// another key, or with none.
//
// Everything is safe for concurrent use, except that Wipe must not overlap a use of
// the same Secret, KEK or DEK; a Cache sees to that for the KEKs it holds.
package keys
