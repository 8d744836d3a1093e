package cryptfile

import (
	"fmt"

	"vmcryptfs/layout"
)

// bounceSize is the size in bytes of a bounce buffer. Bounce buffers assemble the units that the
// caller's buffer holds only in part.
const bounceSize = 64 << 10

// reading is a way to read units: readUnits or peekUnits.
type reading func(f *File, b []byte, off int64) error

// readUnits reads whole units of plaintext from logical offset off, a boundary.
func (f *File) readUnits(b []byte, off int64) error {
	n, err := f.store().ReadAt(b, layout.DataOffset+off)
	return f.decrypted(b, off, n, err)
}

// peekUnits is readUnits for reads that no caller requested.
func (f *File) peekUnits(b []byte, off int64) error {
	n, err := PeekAt(f.store(), b, layout.DataOffset+off)
	return f.decrypted(b, off, n, err)
}

// decrypted decrypts b in place; n bytes of b were read.
func (f *File) decrypted(b []byte, off int64, n int, err error) error {
	if err != nil {
		return fmt.Errorf("read %d bytes of data units at %d: %w", len(b), off, err)
	}
	if n < len(b) {
		return fmt.Errorf("%w: backing file ends %d bytes into the %d of the data units at %d",
			layout.ErrDamaged, n, len(b), off)
	}
	f.cipher.Decrypt(b, b, uint64(off/layout.UnitSize))
	return nil
}

// writeUnits encrypts whole units in place and writes them to logical offset off, a boundary.
// After a failed write, n bytes, whole units, are the new ones; the other units are the old ones.
func (f *File) writeUnits(b []byte, off int64, d Durability) (n int, err error) {
	f.cipher.Encrypt(b, b, uint64(off/layout.UnitSize))
	n, err = f.store().WriteAt(b, layout.DataOffset+off, d)
	if err != nil {
		n = f.mend(b, off, n)
		return n, fmt.Errorf("write %d bytes of data units at %d: %w", len(b), off, err)
	}
	return n, nil
}

// mend repairs a unit of b torn by a failed write after n bytes, and returns how many bytes of b,
// whole units, are stored. In a torn unit each 16-byte block decrypts to old or new by itself,
// with two exceptions: where a hole was, the unwritten part would decrypt to noise, and a tear
// inside a block makes noise of that block. So the unit is written once more, and if that fails,
// a hole is made a hole again.
func (f *File) mend(b []byte, off int64, n int) int {
	torn := n % layout.UnitSize
	whole := n - torn
	if torn == 0 {
		return whole
	}
	unit, at := b[whole:whole+layout.UnitSize], layout.DataOffset+off+int64(whole)
	again, _ := f.store().WriteAt(unit, at, Volatile)
	if again == layout.UnitSize {
		return whole + layout.UnitSize
	}
	torn = max(torn, again)
	var rest [layout.UnitSize]byte
	got, err := PeekAt(f.store(), rest[torn:], at+int64(torn))
	if err == nil && layout.AllZero(rest[torn:torn+got]) {
		clear(rest[:])
		// No further remedy exists; the caller learns of the failed write.
		f.store().WriteAt(rest[:torn], at, Volatile)
	}
	return whole
}

// borrow returns a buffer for bounced units, with stale plaintext of this file; f.bounce.Put
// takes the buffer back.
func (f *File) borrow() *[bounceSize]byte { return f.bounce.Get().(*[bounceSize]byte) }
