package daemon

import (
	"fmt"

	"vmcryptfs/advice"
	vmfs "vmcryptfs/fs"
)

// Unencrypted is a vmfs.Unencrypted written as a word: deny, read or write.
type Unencrypted vmfs.Unencrypted

// ParseUnencrypted gives the Unencrypted of a word. Any other word is a mistake
// (advice.UsageError).
func ParseUnencrypted(s string) (Unencrypted, error) {
	for u := vmfs.Deny; u <= vmfs.Write; u++ {
		if s == Unencrypted(u).String() {
			return Unencrypted(u), nil
		}
	}
	return Unencrypted(vmfs.Deny), advice.Usagef("unencrypted=%s is not known; deny, read or write is expected", s)
}

// String gives the word for u in options and status.
func (u Unencrypted) String() string {
	switch vmfs.Unencrypted(u) {
	case vmfs.Deny:
		return "deny"
	case vmfs.Read:
		return "read"
	case vmfs.Write:
		return "write"
	}
	return fmt.Sprintf("Unencrypted(%d)", int(u))
}

// MarshalText gives the word.
func (u Unencrypted) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads the word.
func (u *Unencrypted) UnmarshalText(word []byte) (err error) {
	*u, err = ParseUnencrypted(string(word))
	return err
}
