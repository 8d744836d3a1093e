package cryptfile

import (
	"io"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Dir is the directory in which a file changes its form.
type Dir interface {
	// CreateTemp makes the hidden temporary, mode 0600, and opens it.
	CreateTemp(temp string) (Backing, error)
	// Publish renames temp over name.
	Publish(temp, name string) error
	Remove(temp string) error
	// Sync is fsync of the directory.
	Sync() error
}

// Conversion replaces the file name in Dir by its other form: the whole other form in
// Temp, synced, then renamed over Name, then the directory synced. A crash leaves the
// old form or the new, and at most a temporary.
type Conversion struct {
	Dir  Dir
	Temp string
	Name string
	// Prepare copies owner, mode, times and extended attributes to the temporary before
	// it is synced; nil: nothing.
	Prepare func(Backing) error
}

// ToEncrypted writes size bytes of src under h and dek. The returned Backing is the
// new file, open.
func (c Conversion) ToEncrypted(src io.ReaderAt, size int64, h *layout.Header, dek *keys.DEK) (Backing, error) {
	panic("cryptfile: not built yet")
}

// ToClear writes size bytes of src in clear.
func (c Conversion) ToClear(src io.ReaderAt, size int64) (Backing, error) {
	panic("cryptfile: not built yet")
}
