package byname

import (
	"crypto/rand"
	"encoding/hex"
)

// Fresh gives 16 random hexadecimal digits, as a part of a name that nobody has and nobody can
// guess. Whoever makes the file must refuse a name that exists all the same (O_EXCL).
func Fresh() string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
