package cryptfile

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"vmcryptfs/cryptoblk"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Dir is the directory of a file that changes its form.
type Dir interface {
	// CreateTemp makes the hidden temporary, mode 0600, and opens the temporary.
	CreateTemp(temp string) (Backing, error)
	// Publish renames temp over name.
	Publish(temp, name string) error
	Remove(temp string) error
	// Sync is fsync of the directory.
	Sync() error
}

// Conversion replaces the file name in Dir by the file's other form: the whole other form is
// written to Temp and synced, then Temp is renamed over Name, then the directory is synced. A
// crash leaves the old form or the new, and at most a temporary. Units of zeros (in cleartext,
// blocks of 4 KiB) become holes. During a conversion the caller must prevent writes to the
// source.
//
// With an error, the returned Backing shows which form has the name. nil: the old form, and Temp
// is gone as far as possible. Otherwise: the new form, open as the returned Backing, and only the
// sync of the directory was refused.
type Conversion struct {
	Dir  Dir
	Temp string
	Name string
	// Prepare copies owner, mode, times and extended attributes to the temporary before the sync;
	// nil: nothing.
	Prepare func(Backing) error
}

const (
	convertChunk = 64 << 10 // bytes copied at once
	clearBlock   = 4 << 10  // granule of holes in a cleartext file
)

// ToEncrypted writes size bytes of src under h, a sealed header, and dek. The caller keeps dek.
func (c Conversion) ToEncrypted(src io.ReaderAt, size int64, h *layout.Header, dek *keys.DEK) (Backing, error) {
	b, err := c.replace(func(b Backing) error { return encrypt(b, src, size, h, dek) })
	if err != nil {
		return b, fmt.Errorf("convert to encrypted: %w", err)
	}
	return b, nil
}

// ToClear writes size bytes of src in clear. Bytes beginning with layout.Magic give EPERM: a
// cleartext file must never look encrypted.
func (c Conversion) ToClear(src io.ReaderAt, size int64) (Backing, error) {
	b, err := c.replace(func(b Backing) error { return copyClear(b, src, size) })
	if err != nil {
		return b, fmt.Errorf("convert to cleartext: %w", err)
	}
	return b, nil
}

// replace makes the temporary, calls fill to write the content, and gives the temporary the name.
func (c Conversion) replace(fill func(Backing) error) (Backing, error) {
	b, err := c.Dir.CreateTemp(c.Temp)
	if err != nil {
		return nil, fmt.Errorf("create temporary: %w", err)
	}
	if err := c.publish(b, fill); err != nil {
		return nil, errors.Join(err, b.Close(), c.Dir.Remove(c.Temp))
	}
	if err := c.Dir.Sync(); err != nil {
		return b, fmt.Errorf("sync directory: %w", err)
	}
	return b, nil
}

func (c Conversion) publish(b Backing, fill func(Backing) error) error {
	if err := fill(b); err != nil {
		return err
	}
	if c.Prepare != nil {
		if err := c.Prepare(b); err != nil {
			return fmt.Errorf("copy attributes: %w", err)
		}
	}
	if err := b.Sync(Full); err != nil {
		return fmt.Errorf("sync temporary: %w", err)
	}
	if err := c.Dir.Publish(c.Temp, c.Name); err != nil {
		return fmt.Errorf("rename temporary: %w", err)
	}
	return nil
}

// encrypt writes an encrypted file to b, an empty file.
func encrypt(b Backing, src io.ReaderAt, size int64, h *layout.Header, dek *keys.DEK) error {
	if _, err := extent(0, size); err != nil {
		return err
	}
	schedule, err := keys.NewSecret(cryptoblk.ScheduleSize)
	if err != nil {
		return err
	}
	defer schedule.Wipe()
	cipher, err := cryptoblk.New(dek.Bytes(), schedule.Bytes())
	if err != nil {
		return err
	}
	defer cipher.Wipe()
	if err := writeSlots(b, h); err != nil {
		return err
	}
	err = eachRun(src, size, layout.UnitSize, func(run []byte, off int64) error {
		cipher.Encrypt(run, run, uint64(off/layout.UnitSize))
		_, err := b.WriteAt(run, layout.DataOffset+off, Volatile)
		return err
	})
	if err != nil {
		return err
	}
	return b.Truncate(layout.DataOffset + layout.StoredLen(size))
}

// copyClear writes a cleartext file to b, an empty file.
func copyClear(b Backing, src io.ReaderAt, size int64) error {
	if _, err := extent(0, size); err != nil {
		return err
	}
	err := eachRun(src, size, clearBlock, func(run []byte, off int64) error {
		if off == 0 && layout.HasMagic(run) {
			return fmt.Errorf("cleartext begins with the magic of an encrypted file: %w", unix.EPERM)
		}
		_, err := b.WriteAt(run, off, Volatile)
		return err
	})
	if err != nil {
		return err
	}
	return b.Truncate(size) // the last run ends with the block
}

// eachRun calls write for every longest run of nonzero blocks within a chunk of src. block is the
// size of a block in bytes; zeros fill up the last block past size.
func eachRun(src io.ReaderAt, size int64, block int, write func(run []byte, off int64) error) error {
	chunk := make([]byte, convertChunk)
	for off := int64(0); off < size; off += convertChunk {
		n := int(min(convertChunk, size-off))
		clear(chunk[n:])
		if got, err := src.ReadAt(chunk[:n], off); got < n {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read source at %d: %w", off, err)
		}
		whole := chunk[:(n+block-1)/block*block]
		if err := eachRunOf(whole, block, func(from, to int) error {
			return write(whole[from:to], off+int64(from))
		}); err != nil {
			return fmt.Errorf("write temporary at %d: %w", off, err)
		}
	}
	return nil
}

// eachRunOf calls f for the longest runs [from, to) of nonzero blocks of p.
func eachRunOf(p []byte, block int, f func(from, to int) error) error {
	for from := 0; from < len(p); {
		if layout.AllZero(p[from : from+block]) {
			from += block
			continue
		}
		to := from + block
		for to < len(p) && !layout.AllZero(p[to:to+block]) {
			to += block
		}
		if err := f(from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}
