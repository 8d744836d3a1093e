package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"
)

// WrapKMIP is the Wrap under a KMIP KEK.
const WrapKMIP = 1

// Greatest lengths of a locker's names, in bytes.
const (
	MaxProvider = 64
	MaxKeyID    = 256
)

// Offsets in a locker (docs/on-disk-format.md, "Locker").
const (
	atWrap        = 0
	atProviderLen = 1
	atKeyIDLen    = 2
	atKCV         = 4
	atNonce       = 20
	atWrapped     = 32
	atProvider    = 112
	atKeyID       = atProvider + MaxProvider // 176
	atRest        = atKeyID + MaxKeyID       // 432; 48 bytes belong to the wrap
)

// Locker is a DEK wrapped for one KEK. A locker of unknown Wrap keeps its bytes unchanged, and
// sets no other field.
type Locker struct {
	Wrap     uint8 // 0 empty, 1 under a KMIP KEK
	Provider string
	KeyID    string
	KCV      [16]byte // key check value of the KEK
	Nonce    [12]byte
	Wrapped  [80]byte // wrapped DEK (64) and GCM tag (16)
	raw      []byte   // LockerSize bytes of an unknown wrap, else nil; never written
}

// decodeLocker decodes LockerSize bytes. An error names the wrong field.
func decodeLocker(b []byte) (Locker, error) {
	switch b[atWrap] {
	case 0:
		if !AllZero(b) {
			return Locker{}, errors.New("empty, but not all zero")
		}
		return Locker{}, nil
	case WrapKMIP:
		return decodeKMIP(b)
	default:
		return Locker{Wrap: b[atWrap], raw: slices.Clone(b)}, nil
	}
}

func decodeKMIP(b []byte) (Locker, error) {
	provider, err := decodeName(b[atProvider:atKeyID], int(b[atProviderLen]))
	if err != nil {
		return Locker{}, fmt.Errorf("provider name: %w", err)
	}
	keyID, err := decodeName(b[atKeyID:atRest], int(binary.LittleEndian.Uint16(b[atKeyIDLen:])))
	if err != nil {
		return Locker{}, fmt.Errorf("key identifier: %w", err)
	}
	if !AllZero(b[atRest:]) {
		return Locker{}, errors.New("bytes after the key identifier are not zero")
	}
	return Locker{
		Wrap:     WrapKMIP,
		Provider: provider,
		KeyID:    keyID,
		KCV:      [16]byte(b[atKCV:]),
		Nonce:    [12]byte(b[atNonce:]),
		Wrapped:  [80]byte(b[atWrapped:]),
	}, nil
}

// decodeName decodes a name of n bytes from a zero-padded field.
func decodeName(field []byte, n int) (string, error) {
	if n > len(field) {
		return "", fmt.Errorf("length %d is over %d", n, len(field))
	}
	if !AllZero(field[n:]) {
		return "", errors.New("padding is not zero")
	}
	name := string(field[:n])
	return name, validName(name, len(field))
}

// encode writes l to p, LockerSize zero bytes.
func (l *Locker) encode(p []byte) {
	switch l.Wrap {
	case 0:
	case WrapKMIP:
		if err := ValidNames(l.Provider, l.KeyID); err != nil {
			panic("layout: locker to encode: " + err.Error())
		}
		p[atWrap] = WrapKMIP
		p[atProviderLen] = uint8(len(l.Provider))
		binary.LittleEndian.PutUint16(p[atKeyIDLen:], uint16(len(l.KeyID)))
		copy(p[atKCV:], l.KCV[:])
		copy(p[atNonce:], l.Nonce[:])
		copy(p[atWrapped:], l.Wrapped[:])
		copy(p[atProvider:], l.Provider)
		copy(p[atKeyID:], l.KeyID)
	default:
		if len(l.raw) != LockerSize || l.raw[atWrap] != l.Wrap {
			panic(fmt.Sprintf("layout: locker of unknown wrap %d was not decoded", l.Wrap))
		}
		copy(p, l.raw)
	}
}

// ValidNames checks a provider name and key identifier for a locker: 1…64 and
// 1…256 bytes of UTF-8 without control characters.
func ValidNames(provider, keyID string) error {
	if err := validName(provider, MaxProvider); err != nil {
		return fmt.Errorf("provider name: %w", err)
	}
	if err := validName(keyID, MaxKeyID); err != nil {
		return fmt.Errorf("key identifier: %w", err)
	}
	return nil
}

func validName(s string, most int) error {
	switch {
	case s == "":
		return errors.New("empty")
	case len(s) > most:
		return fmt.Errorf("%d bytes, over %d", len(s), most)
	case !utf8.ValidString(s):
		return errors.New("not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return fmt.Errorf("control character %U", r)
		}
	}
	return nil
}
