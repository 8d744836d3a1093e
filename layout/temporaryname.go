package layout

import (
	"encoding/hex"
	"strings"
)

// TemporaryPrefix begins the names of the temporaries that a host makes: .vmcryptfs-HOST-, where HOST
// is 16 hexadecimal digits. The whole name is .vmcryptfs-HOST-MOUNT-NUMBER.
func TemporaryPrefix(host string) string { return ReservedPrefix + "-" + host + "-" }

// ParseTemporary returns the host that made the temporary of that name. ok is false for every other
// name.
func ParseTemporary(name string) (host string, ok bool) {
	rest, ok := strings.CutPrefix(name, ReservedPrefix+"-")
	if !ok {
		return "", false
	}
	parts := strings.Split(rest, "-")
	if len(parts) != 3 {
		return "", false
	}
	for _, part := range parts {
		if b, err := hex.DecodeString(part); err != nil || len(b) != 8 {
			return "", false
		}
	}
	return parts[0], true
}
