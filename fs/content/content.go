package content

import (
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/keys"
)

// Content is an open file as its readers and writers see it: encrypted, or in clear. The methods
// are those of a file; offsets and lengths are in bytes of the caller's view. All methods but Close
// are safe for concurrent use. A content of two files, one of which becomes the other, has a
// rangelock.Lock of its own above the locks of the two.
type Content interface {
	// ReadAt fills p from off. Fewer bytes than len(p), with a nil error, mean the end of the file.
	ReadAt(p []byte, off int64) (int, error)
	// PeekAt is ReadAt without a change of the access time.
	PeekAt(p []byte, off int64) (int, error)
	// WriteAt writes p at off, and may leave anything in p. Fewer bytes than len(p) come with an
	// error.
	WriteAt(p []byte, off int64, d cryptfile.Durability) (int, error)
	// Truncate sets the size; added bytes read as zeros.
	Truncate(size int64) error
	// Sync makes all answered changes durable.
	Sync(d cryptfile.Durability) error
	// Punch makes [off, off+n) a hole; the size stays.
	Punch(off, n int64) error
	// Zero makes [off, off+n) zeros with space allocated; the size grows unless keepSize.
	Zero(off, n int64, keepSize bool) error
	// Allocate reserves space for [off, off+n); the size grows unless keepSize.
	Allocate(off, n int64, keepSize bool) error
	// Seek is lseek(2) with SEEK_DATA or SEEK_HOLE.
	Seek(off int64, whence int) (int64, error)
	Size() (int64, error)
	// Close ends the content, once no other operation is under way; idempotent.
	Close() error

	// SyncFailure is the last lost write to BACKING, or nil.
	SyncFailure() *cryptfile.SyncFailure
	// UseDirect changes the number of handles that go around BACKING's page cache, as far as
	// BACKING permits.
	UseDirect(change int)
	// CountReads makes later reads change access times, as BACKING's mount has it.
	CountReads()
}

// encrypted is the Content of an encrypted file.
type encrypted struct {
	*cryptfile.File
	carrier *cryptfile.OSFile // the File's own
}

func (e *encrypted) Size() (int64, error)                { return e.File.Size(), nil }
func (e *encrypted) SyncFailure() *cryptfile.SyncFailure { return e.carrier.SyncFailure() }
func (e *encrypted) UseDirect(change int)                { e.carrier.UseDirect(change) }
func (e *encrypted) CountReads()                         { e.carrier.CountReads() }

var (
	_ Content = (*clearFile)(nil)
	_ Content = (*encrypted)(nil)
)

// OpenEncrypted opens b with dek, unwrapped from b's header, and takes over both, also on error.
// torn: the header slots differ. warning: the length of b is that of no encrypted file.
func OpenEncrypted(b *cryptfile.OSFile, dek *keys.DEK, can Intent, torn bool) (o *File, warning, err error) {
	file, err := cryptfile.Open(b, dek)
	if err != nil {
		return nil, nil, err
	}
	return &File{Content: &encrypted{file, b}, carrier: b, Form: backing.Encrypted, Can: can, torn: torn}, file.Warning(), nil
}

// OpenClear opens b, whose form is form, in clear, and takes over b.
func OpenClear(b *cryptfile.OSFile, form backing.Form, can Intent) *File {
	return &File{Content: &clearFile{OSFile: b}, carrier: b, Form: form, Can: can}
}
