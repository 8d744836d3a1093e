// Package keys defines a key in vmcryptfs: locked memory for KEKs and DEKs, wrapping a DEK for a
// header, the seal of the settings, the cache of KEKs, and the Provider interface implemented by
// a key server's client.
//
// Key material lives in a Secret: pages locked, left out of core files and of forked children,
// between guard pages, zeroed on release. A program calls HardenProcess before the first key;
// HardenProcess covers the copies that the standard library makes on the Go heap for the time of
// a call (derived keys, AES schedules, HMAC states). No error, log line or format verb shows
// material. A KEK or DEK used after Wipe panics: HKDF of nothing would be a key that anyone can
// derive.
//
// The constructions are those of the on-disk format, version 1: wrap 1, slot MAC, key check
// value, and the seal of the settings. Names and identifiers from a header or from settings are
// untrusted until a MAC is checked: errors escape them, and a failed look-up is remembered for
// seconds in bounded memory.
//
// An error names one of three faults: the key cannot be had now (ErrNoKey, with a reason, itself
// a sentinel), the key is none of ours (ErrKeyLength), or data under the key was changed
// (ErrTampered, ErrSeal). No fault is answered with another key, or with none.
//
// Everything is safe for concurrent use, with one exception: Wipe must not overlap a use of the
// same Secret, KEK or DEK. A Cache ensures that for the KEKs held.
package keys
