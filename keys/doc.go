// Package keys is what a key is in vmcryptfs: locked memory for KEKs and DEKs,
// wrapping a DEK for a header, the seal of the settings, the cache of KEKs, and the
// Provider interface that a key server's client implements.
package keys
