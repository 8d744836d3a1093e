package layout

import (
	"encoding/hex"
	"errors"
)

// FileID identifies an encrypted file, a move or a place (each a random UUID v4), or a datastore.
// The bytes are in RFC 9562 order.
type FileID [16]byte

var errUUID = errors.New("not a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")

// groups are the ends of the five groups of digits of a UUID (RFC 9562 §4), in bytes.
var groups = [...]int{4, 6, 8, 10, 16}

// String is id in the form of RFC 9562, in lower case.
func (id FileID) String() string {
	text := make([]byte, 0, 36)
	start := 0
	for _, end := range groups {
		if start > 0 {
			text = append(text, '-')
		}
		text = hex.AppendEncode(text, id[start:end])
		start = end
	}
	return string(text)
}

// ParseFileID parses the form written by String, with hex digits of either case.
func ParseFileID(s string) (FileID, error) {
	var id FileID
	start := 0
	for i, end := range groups {
		if i > 0 {
			if s == "" || s[0] != '-' {
				return FileID{}, errUUID
			}
			s = s[1:]
		}
		digits := 2 * (end - start)
		if len(s) < digits {
			return FileID{}, errUUID
		}
		if _, err := hex.Decode(id[start:end], []byte(s[:digits])); err != nil {
			return FileID{}, errUUID
		}
		s, start = s[digits:], end
	}
	if s != "" {
		return FileID{}, errUUID
	}
	return id, nil
}
