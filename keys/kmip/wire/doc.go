// Package wire is the KMIP wire format shared by the client and the development KMS: frames of a
// bounded length, items of bounded nesting, and versions. TTLV itself and the names of tags come
// from github.com/gemalto/kmip-go.
//
// Incoming bytes are never trusted. A frame is at most MaxMessage bytes. Decode checks every
// header in a frame before anything looks at a value, and contains the panics of the codec
// library. Items alias the frame, so key material is not copied on the way: the caller owns the
// frame and wipes the frame.
//
// The functions keep no state and are safe for concurrent use.
package wire
