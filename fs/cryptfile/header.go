package cryptfile

import (
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// ReadHeader reads both slots and decides which counts: layout's errors, or the
// backing file's. short (no header at all: below 1 MiB or no magic) is not decided here.
func ReadHeader(b Backing) (layout.Slots, error) { panic("cryptfile: not built yet") }

// IsEncrypted tells the form of a backing file: at least 1 MiB long, and Magic.
func IsEncrypted(b Backing) (bool, error) { panic("cryptfile: not built yet") }

// HasSlotB tells if a well-formed slot lies at B, whatever A is: such a file is never
// served as cleartext.
func HasSlotB(b Backing) (bool, error) { panic("cryptfile: not built yet") }

// Format writes both slots of h and the length of an empty file, and syncs: b then may
// get its name.
func Format(b Backing, h *layout.Header) error { panic("cryptfile: not built yet") }

// UpdateHeader writes h, with the generation grown and the MAC set under dek, to both
// slots in the crash-safe order of design §3.
func UpdateHeader(b Backing, s layout.Slots, h *layout.Header, dek *keys.DEK) error {
	panic("cryptfile: not built yet")
}

// Heal copies the counting slot over the other one when they differ, and syncs.
func Heal(b Backing, s layout.Slots) error { panic("cryptfile: not built yet") }
