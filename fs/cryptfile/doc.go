// Package cryptfile is one encrypted file over a backing file: plaintext reads and writes at any
// offset, holes, size, durability, and the header. The package knows no FUSE and needs no mount.
//
// A [File] translates logical offsets to data units of the backing file (design §3):
//
//   - An aligned read or write is exactly one call of the backing file. An unaligned one is
//     at most one read of the surrounding units and one write of whole units. A long
//     unaligned one is cut into its two edge units and the run between.
//   - Operations on disjoint units run in parallel; overlapping writes exclude one another,
//     and a read excludes a write in flight on the same unit.
//   - The logical size follows from the stored length; no other record of the size exists.
//     Every change of the size is a sequence of steps that may be cut off after any step.
//   - An error of the backing file is returned unchanged (errors.As finds the errno). A
//     failed write leaves each unit old or new, and the size at the end of the units
//     written.
//
// The functions of header.go read, make and update a header on the backing file itself; the
// server of a file must keep updates of the header from overlapping. A [Conversion] replaces a
// file by the file's other form.
package cryptfile
