// Package cryptfile is one encrypted file over a backing file: plaintext reads and
// writes at any offset, holes, size, durability, and the header. No FUSE in it, no
// mount needed.
//
// A [File] translates logical offsets to data units of the backing file (design §3):
//
//   - An aligned read or write is exactly one call of the backing file, an unaligned one
//     at most one read of what lies around it and one write of whole units. A long
//     unaligned one is cut into its two edge units and the run between them.
//   - Operations on units that do not overlap run in parallel; overlapping writes
//     exclude one another, and a read excludes a write in flight on the same unit.
//   - The logical size follows from the stored length, so there is no record of it.
//     Every change of it is a sequence of steps that may be cut off after any of them.
//   - What the backing file refuses is returned as it came (errors.As finds the errno).
//     A failed write leaves each unit old or new, and the size where the units end that
//     were written.
//
// A header is read, made and updated with the functions of header.go on the backing file
// itself; whoever serves a file keeps updates of its header from overlapping. A
// [Conversion] replaces a file by its other form.
package cryptfile
