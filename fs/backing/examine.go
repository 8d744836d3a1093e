package backing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/layout"
)

// ErrHidden says that the magic of slot A is gone and a header lies in slot B.
var ErrHidden = fmt.Errorf("%w: slot A has lost its magic, slot B is whole: vmcryptfs export can read it", layout.ErrDamaged)

// headerWait bounds the wait for those who update a header. Such an update writes two slots and
// syncs.
const headerWait = 4 * time.Second

// ReadHeader reads the header of the encrypted file b, which a rekey may be writing. An update
// writes one slot after the other, so a read beside an update may find neither slot whole; then
// ReadHeader waits, at most 4 seconds, until nobody updates the header, and reads again. What is
// damage then is layout.ErrDamaged; layout.ErrUnsupported is a newer version's header.
func ReadHeader(ctx context.Context, b *cryptfile.OSFile) (layout.Slots, error) {
	slots, err := cryptfile.ReadHeader(b)
	if !errors.Is(err, layout.ErrDamaged) {
		return slots, err
	}
	return readLocked(ctx, b)
}

// readLocked reads the header once nobody updates it, after at most headerWait.
func readLocked(ctx context.Context, b *cryptfile.OSFile) (layout.Slots, error) {
	ctx, cancel := context.WithTimeout(ctx, headerWait)
	defer cancel()
	return b.ReadHeaderLocked(ctx)
}

// readQuiet is ReadHeader, and waits also where the slots differ: beside a running update that
// says nothing. Slots that differ in the result are those of an update that was cut off, or of one
// that holds the lock for longer than the wait.
func readQuiet(ctx context.Context, b *cryptfile.OSFile) (layout.Slots, error) {
	slots, err := cryptfile.ReadHeader(b)
	damaged := errors.Is(err, layout.ErrDamaged)
	if !damaged && (err != nil || !slots.Differ) {
		return slots, err
	}
	quiet, err := readLocked(ctx, b)
	if err != nil && !damaged {
		return slots, nil
	}
	return quiet, err
}

// IsEncrypted reports whether b is an encrypted file, whatever its name is. ErrHidden for a file
// that looks like cleartext and holds a header: a wrap may be in it that nobody can replace.
func IsEncrypted(b cryptfile.Backing) (bool, error) {
	encrypted, err := cryptfile.IsEncrypted(b)
	if encrypted || err != nil {
		return encrypted, err
	}
	hidden, err := cryptfile.HasSlotB(b)
	if err == nil && hidden {
		err = ErrHidden
	}
	return false, err
}

// Found is what can be told of a regular file without a key. Lengths are in bytes.
type Found struct {
	Form   Form
	Slots  layout.Slots // of a file that is encrypted, or that is Hidden; no Header: not read
	Stored int64        // length in BACKING
	Size   int64        // length as the mount shows it
	// OddLength: the stored length is that of no encrypted file, and the file counts as empty.
	OddLength bool
	// Hidden: the file looks like cleartext, and holds a well-formed slot B.
	Hidden bool
}

// Examine finds all that can be told of the regular file b under a name of the verdict v. Damage
// is layout.ErrDamaged, and what was found before the damage is in Found all the same. Beside a
// running update of the header, Examine waits for the end of the update, at most headerWait.
func Examine(ctx context.Context, b *cryptfile.OSFile, v layout.Verdict) (found Found, err error) {
	if found.Stored, err = b.Size(); err != nil {
		return found, err
	}
	found.Size = found.Stored
	if found.Form, err = Judge(b, v); err != nil {
		return found, err
	}
	if found.Form != Encrypted {
		if found.Hidden, err = cryptfile.HasSlotB(b); err != nil || !found.Hidden {
			return found, err
		}
	}
	if found.Slots, err = readQuiet(ctx, b); err != nil {
		return found, err
	}
	size, ok := layout.LogicalLen(found.Stored - layout.DataOffset)
	found.Size, found.OddLength = size, !ok
	if found.Hidden {
		return found, ErrHidden
	}
	return found, nil
}
