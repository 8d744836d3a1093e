// Package devkms is the embedded development KMS: a small KMIP server over a file
// store, with its own CA, on loopback only, mutual TLS required. It speaks KMIP 1.0 to
// 1.4 and 2.0, any KMIP client can use it, and it follows the standard's rules for
// states and result reasons.
//
// It is for trying things out and for tests: its keys lie on this host in clear, one
// file each, so they protect nothing from who can read this host's disk.
//
// What clients send is not trusted: frames and nesting are bounded, a client that
// talks nonsense loses its session and no other.
package devkms
