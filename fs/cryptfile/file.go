// Package cryptfile is one encrypted file over a backing file: plaintext reads and
// writes at any offset, holes, size and durability. No FUSE in it, no mount needed.
package cryptfile

import "vmcryptfs/keys"

// File is an open encrypted file. Safe for concurrent use: operations on data units
// that do not overlap run in parallel.
type File struct{}

// Open takes over b and dek, also on error: Close closes and wipes them.
func Open(b Backing, dek *keys.DEK) (*File, error) { panic("cryptfile: not built yet") }

// Size is the logical size in bytes.
func (f *File) Size() int64 { panic("cryptfile: not built yet") }

// ReadAt fills p from off; n < len(p) with a nil error only at the end of file.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) { panic("cryptfile: not built yet") }

// WriteAt writes p at off and grows the file as needed. It encrypts in place: p is
// noise afterwards.
func (f *File) WriteAt(p []byte, off int64, d Durability) (n int, err error) {
	panic("cryptfile: not built yet")
}

// Truncate sets the logical size.
func (f *File) Truncate(n int64) error { panic("cryptfile: not built yet") }

// Sync makes what was answered durable.
func (f *File) Sync(d Durability) error { panic("cryptfile: not built yet") }

// Punch makes [off, off+n) a hole; the size stays.
func (f *File) Punch(off, n int64) error { panic("cryptfile: not built yet") }

// Zero makes [off, off+n) zeros with space allocated; the size grows unless keepSize.
func (f *File) Zero(off, n int64, keepSize bool) error { panic("cryptfile: not built yet") }

// Allocate reserves space for [off, off+n); the size grows unless keepSize.
func (f *File) Allocate(off, n int64, keepSize bool) error { panic("cryptfile: not built yet") }

// Seek is lseek(2) with SEEK_DATA or SEEK_HOLE: ENXIO past the end.
func (f *File) Seek(off int64, whence int) (int64, error) { panic("cryptfile: not built yet") }

// Close waits for operations under way, wipes the key and closes the backing file;
// idempotent.
func (f *File) Close() error { panic("cryptfile: not built yet") }
