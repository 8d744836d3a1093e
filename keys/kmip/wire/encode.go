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

// SetMaterials replaces the zero bytes standing for key material in an encoded message, in order.
// So key material never passes through the encoder, whose buffers nobody wipes.
func SetMaterials(frame []byte, materials [][]byte) error {
	return Decode(frame, func(message Item) error {
		rest := fill(message, materials)
		if len(rest) > 0 {
			return Malformed("no place for %d keys", len(rest))
		}
		return nil
	})
}

// fill fills the keys within i, and returns the remaining materials.
func fill(i Item, materials [][]byte) [][]byte {
	place := i.Type() == ttlv.TypeByteString && (i.Tag() == kmip14.TagKeyMaterial || i.Tag() == kmip14.TagKey)
	if place && len(materials) > 0 && len(i.Raw()) == len(materials[0]) {
		copy(i.Raw(), materials[0])
		return materials[1:]
	}
	for c := range i.Children() {
		materials = fill(c, materials)
	}
	return materials
}

// Text is a string encoded as a Text String. For a tag with an enumeration, a plain string would
// be looked up among the enumeration's names and numbers: the Unique Identifier "1" would become
// the enumeration value ID Placeholder.
type Text string

// MarshalTTLV implements ttlv.Marshaler.
func (t Text) MarshalTTLV(e *ttlv.Encoder, tag ttlv.Tag) error {
	e.EncodeTextString(tag, string(t))
	return nil
}
