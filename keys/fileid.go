package keys

import (
	"crypto/rand"

	"vmcryptfs/layout"
)

// NewFileID gives a random id of a file or a datastore, a UUID of version 4 (RFC 9562 §5.4).
func NewFileID() (id layout.FileID) {
	rand.Read(id[:]) // never fails (crypto/rand)
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
