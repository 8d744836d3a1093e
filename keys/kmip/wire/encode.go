package wire

import (
	"fmt"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/ttlv"
)

// Encode makes the bytes of a message, at most MaxMessage.
func Encode(message ttlv.Value) ([]byte, error) {
	frame, err := ttlv.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", message.Tag, err)
	}
	if len(frame) > MaxMessage {
		return nil, fmt.Errorf("encode %s: %d bytes, at most %d", message.Tag, len(frame), MaxMessage)
	}
	return frame, nil
}

// SetMaterial puts key material in the place of the zero bytes that stand for it in
// an encoded message. So it never passes through the encoder, whose buffers nobody
// wipes.
func SetMaterial(frame, material []byte) error {
	return Decode(frame, func(message Item) error {
		at, ok := descend(message, kmip14.TagKeyMaterial)
		if !ok || len(at.Raw()) != len(material) {
			return malformed("no room for %d bytes of key material", len(material))
		}
		copy(at.Raw(), material)
		return nil
	})
}

// descend finds the first byte string of this tag at any depth.
func descend(i Item, tag ttlv.Tag) (Item, bool) {
	if i.Tag() == tag && i.Type() == ttlv.TypeByteString {
		return i, true
	}
	for c := range i.Children() {
		if found, ok := descend(c, tag); ok {
			return found, true
		}
	}
	return Item{}, false
}
