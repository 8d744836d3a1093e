package wire

import (
	"fmt"
	"iter"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gemalto/kmip-go/ttlv"
)

// Item is one checked item of a message; the zero value is no item. An Item aliases its frame,
// and is valid only within Decode.
type Item struct{ t ttlv.TTLV }

// Present reports whether i is an item rather than the zero value.
func (i Item) Present() bool { return len(i.t) > 0 }

// Tag is the item's tag.
func (i Item) Tag() ttlv.Tag { return i.t.Tag() }

// Type is the item's type.
func (i Item) Type() ttlv.Type { return i.t.Type() }

// Raw returns the value without padding, aliasing the frame.
func (i Item) Raw() []byte { return i.t.ValueRaw() }

// Children are the items of a structure, in order; of anything else, none.
func (i Item) Children() iter.Seq[Item] {
	return func(yield func(Item) bool) {
		if i.Type() != ttlv.TypeStructure {
			return
		}
		for rest := i.t.ValueStructure(); len(rest) > 0; rest = rest[rest.FullLen():] {
			if !yield(Item{rest}) {
				return
			}
		}
	}
}

// Find returns the first child with this tag, absent without one.
func (i Item) Find(tag ttlv.Tag) Item {
	for child := range i.Children() {
		if child.Tag() == tag {
			return child
		}
	}
	return Item{}
}

// child returns the first child with this tag, which must have the type typ.
func (i Item) child(tag ttlv.Tag, typ ttlv.Type) (Item, error) {
	c := i.Find(tag)
	if !c.Present() {
		return Item{}, Malformed("%s has no %s", i.Tag(), tag)
	}
	if c.Type() != typ {
		return Item{}, Malformed("%s in %s is of type %s", tag, i.Tag(), c.Type())
	}
	return c, nil
}

// Struct returns the child structure with this tag.
func (i Item) Struct(tag ttlv.Tag) (Item, error) { return i.child(tag, ttlv.TypeStructure) }

// Text returns the value of the child text string with this tag: valid UTF-8 without control
// characters, at most MaxText bytes.
func (i Item) Text(tag ttlv.Tag) (string, error) {
	c, err := i.child(tag, ttlv.TypeTextString)
	if err != nil {
		return "", err
	}
	s, err := c.AsText()
	if err != nil {
		return "", fmt.Errorf("%s: %w", tag, err)
	}
	return s, nil
}

// MaxText bounds text strings, in bytes.
const MaxText = 4096

// AsText is the value of a text string, as Text.
func (i Item) AsText() (string, error) {
	raw := i.Raw()
	switch {
	case i.Type() != ttlv.TypeTextString:
		return "", Malformed("%s is of type %s", i.Tag(), i.Type())
	case len(raw) > MaxText:
		return "", Malformed("a text of %d bytes, at most %d accepted", len(raw), MaxText)
	case !utf8.Valid(raw):
		return "", Malformed("a text that is not UTF-8")
	case strings.ContainsFunc(string(raw), unicode.IsControl):
		return "", Malformed("a text with control characters")
	}
	return string(raw), nil
}

// Enum returns the value of the child enumeration with this tag.
func (i Item) Enum(tag ttlv.Tag) (uint32, error) {
	c, err := i.child(tag, ttlv.TypeEnumeration)
	if err != nil {
		return 0, err
	}
	return uint32(c.t.ValueEnumeration()), nil
}

// Int returns the value of the child integer with this tag.
func (i Item) Int(tag ttlv.Tag) (int32, error) {
	c, err := i.child(tag, ttlv.TypeInteger)
	if err != nil {
		return 0, err
	}
	return c.t.ValueInteger(), nil
}

// AsEnum is the value of an enumeration.
func (i Item) AsEnum() (uint32, error) {
	if i.Type() != ttlv.TypeEnumeration {
		return 0, Malformed("%s is of type %s", i.Tag(), i.Type())
	}
	return uint32(i.t.ValueEnumeration()), nil
}

// AsInt is the value of an integer.
func (i Item) AsInt() (int32, error) {
	if i.Type() != ttlv.TypeInteger {
		return 0, Malformed("%s is of type %s", i.Tag(), i.Type())
	}
	return i.t.ValueInteger(), nil
}

// Bytes returns the value of the child byte string with this tag, aliasing the frame.
func (i Item) Bytes(tag ttlv.Tag) ([]byte, error) {
	c, err := i.child(tag, ttlv.TypeByteString)
	if err != nil {
		return nil, err
	}
	return c.Raw(), nil
}

// AsTime is the value of a date.
func (i Item) AsTime() (time.Time, error) {
	if i.Type() != ttlv.TypeDateTime {
		return time.Time{}, Malformed("%s is of type %s", i.Tag(), i.Type())
	}
	return i.t.ValueDateTime(), nil
}
