// Package devkms is the embedded development KMS: a small KMIP server over a file store, with a
// CA of its own, on loopback only, mutual TLS required. The server speaks KMIP 1.0 to 1.4 and
// 2.0, serves any KMIP client, and follows the standard's rules for states and result reasons.
//
// The server is for experiments and tests. Its keys lie on this host in clear, one file each, and
// protect nothing from a reader of this host's disk.
//
// Bytes from clients are not trusted: frames and nesting are bounded, and a client that sends
// nonsense loses its own session and no other.
package devkms
