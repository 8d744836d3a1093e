package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"
	"github.com/gemalto/kmip-go/ttlv"

	"vmcryptfs/keys/kmip/wire"
)

// item is a TTLV item by hand.
func item(tag uint32, typ byte, value []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, tag<<8|uint32(typ))
	b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
	b = append(b, value...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

const (
	structure, integer, text, octets = 1, 2, 7, 8

	tagResponse = 0x42007b
	tagName     = 0x420055
	tagMaterial = 0x420043
)

func nested(levels int) []byte {
	var b []byte
	for range levels {
		b = item(tagResponse, structure, b)
	}
	return b
}

func TestReadFrame(t *testing.T) {
	t.Parallel()
	good := item(tagResponse, structure, item(tagName, text, []byte("a name")))
	huge := binary.BigEndian.AppendUint32([]byte{0x42, 0x00, 0x7b, structure}, wire.MaxMessage-7)
	for _, c := range []struct {
		name string
		sent []byte
		want error
	}{
		{"whole", good, nil},
		{"and more after it", append(bytes.Clone(good), 1, 2, 3), nil},
		{"nothing", nil, io.EOF},
		{"part of a header", good[:7], io.ErrUnexpectedEOF},
		{"a header", good[:8], io.ErrUnexpectedEOF},
		{"all but a byte", good[:len(good)-1], io.ErrUnexpectedEOF},
		{"another tag", item(tagName, structure, nil), wire.ErrMalformed},
		{"another type", item(tagResponse, text, []byte("x")), wire.ErrMalformed},
		{"one byte too long", huge, wire.ErrMalformed},
		{"4 GiB", []byte{0x42, 0x00, 0x7b, structure, 0xff, 0xff, 0xff, 0xff}, wire.ErrMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			frame, err := wire.ReadFrame(bytes.NewReader(c.sent), kmip14.TagResponseMessage)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if c.want == nil && !bytes.Equal(frame, good) {
				t.Errorf("frame %x", frame)
			}
		})
	}
	most := binary.BigEndian.AppendUint32([]byte{0x42, 0x00, 0x7b, structure}, wire.MaxMessage-8)
	frame, err := wire.ReadFrame(bytes.NewReader(append(most, make([]byte, wire.MaxMessage-8)...)), kmip14.TagResponseMessage)
	if err != nil || len(frame) != wire.MaxMessage {
		t.Errorf("the longest message: %d bytes, %v", len(frame), err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	in := func(value []byte) []byte { return item(tagResponse, structure, value) }
	cut := in(item(tagName, text, []byte("a name")))
	binary.BigEndian.PutUint32(cut[12:], 100)
	for _, c := range []struct {
		name    string
		message []byte
	}{
		{"nothing", nil},
		{"part of a header", in(nil)[:5]},
		{"two messages", append(in(nil), in(nil)...)},
		{"an item longer than its structure", cut},
		{"an item of 4 GiB", in(append([]byte{0x42, 0, 0x55, text}, 0xff, 0xff, 0xff, 0xff))},
		{"half a header within", in([]byte{0x42, 0, 0x55, text})},
		{"an integer of 3 bytes", in(item(tagName, integer, []byte{1, 2, 3}))},
		{"an integer of 8 bytes", in(item(tagName, integer, make([]byte, 8)))},
		{"a boolean of 4 bytes", in(item(tagName, 6, make([]byte, 4)))},
		{"an integer without its padding", in(item(tagName, integer, make([]byte, 4))[:12])},
		{"a big integer of 7 bytes", in(item(tagName, 4, make([]byte, 7)))},
		{"type 0", in(item(tagName, 0, nil))},
		{"type 0x0c", in(item(tagName, 0x0c, nil))},
		{"a tag that is none", in(item(0x110055, text, nil))},
		{"too deep by one", nested(wire.MaxDepth + 1)},
		{"far too deep", nested(5000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := wire.Decode(c.message, func(wire.Item) error {
				t.Error("it was given out")
				return nil
			})
			if !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("%v, want %v", err, wire.ErrMalformed)
			}
		})
	}
	if err := wire.Decode(nested(wire.MaxDepth), func(wire.Item) error { return nil }); err != nil {
		t.Errorf("%d levels: %v", wire.MaxDepth, err)
	}
}

// TestContained: a panic over a message becomes an error, without a quote of the message.
func TestContained(t *testing.T) {
	t.Parallel()
	err := wire.Decode(item(tagResponse, structure, nil), func(wire.Item) error {
		panic("the key is 0123")
	})
	if !errors.Is(err, wire.ErrMalformed) || strings.Contains(err.Error(), "0123") {
		t.Errorf("%v", err)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value string
		good  bool
	}{
		{"", true}, {"a name", true}, {"schlüssel", true}, {strings.Repeat("x", wire.MaxText), true},
		{strings.Repeat("x", wire.MaxText+1), false}, {"a\x00b", false}, {"a\x1b[31m", false}, {"\xff\xfe", false}, {"a\u0085b", false},
	} {
		message := item(tagResponse, structure, item(tagName, text, []byte(c.value)))
		err := wire.Decode(message, func(m wire.Item) error {
			got, err := m.Text(kmip14.TagComment)
			if err == nil {
				t.Errorf("a tag that is not there: %q", got)
			}
			got, err = m.Text(tagName)
			if c.good && got != c.value {
				t.Errorf("%q, want %q", got, c.value)
			}
			return err
		})
		if c.good != (err == nil) || !c.good && !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%q: %v", c.value[:min(len(c.value), 20)], err)
		}
	}
}

// TestWrongTypes: an item of another type than expected is malformed, not a panic.
func TestWrongTypes(t *testing.T) {
	t.Parallel()
	message := item(tagResponse, structure, append(item(tagName, 0x0a, make([]byte, 4)), item(tagMaterial, integer, make([]byte, 4))...))
	err := wire.Decode(message, func(m wire.Item) error {
		for what, read := range map[string]func() error{
			"Text":     func() error { _, err := m.Text(tagName); return err },
			"Enum":     func() error { _, err := m.Enum(tagName); return err },
			"Int":      func() error { _, err := m.Int(tagName); return err },
			"Bytes":    func() error { _, err := m.Bytes(tagName); return err },
			"Struct":   func() error { _, err := m.Struct(tagName); return err },
			"AsText":   func() error { _, err := m.Find(tagName).AsText(); return err },
			"AsEnum":   func() error { _, err := m.Find(tagName).AsEnum(); return err },
			"AsInt":    func() error { _, err := m.Find(tagName).AsInt(); return err },
			"AsTime":   func() error { _, err := m.Find(tagName).AsTime(); return err },
			"absent":   func() error { _, err := wire.Item{}.AsText(); return err },
			"no child": func() error { _, err := m.Find(tagName).Text(tagName); return err },
		} {
			if err := read(); !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("%s: %v, want %v", what, err, wire.ErrMalformed)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestTextStaysText: a string of digits under a tag with an enumeration, like PyKMIP's
// identifiers.
func TestTextStaysText(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"1", "0x2", "IDPlaceholder", ""} {
		frame, err := wire.Encode(ttlv.NewStruct(kmip14.TagRequestMessage,
			ttlv.NewValue(kmip14.TagUniqueIdentifier, wire.Text(value))))
		if err != nil {
			t.Fatal(err)
		}
		if want := item(0x420078, structure, item(0x420094, text, []byte(value))); !bytes.Equal(frame, want) {
			t.Errorf("%q: %x, want %x", value, frame, want)
		}
	}
}

func TestMaterials(t *testing.T) {
	t.Parallel()
	key := func(n int) []byte {
		return item(0x420040, structure, item(0x420045, structure, item(tagMaterial, octets, make([]byte, n))))
	}
	message := item(tagResponse, structure, append(key(16), key(32)...))
	one, two := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 32)
	if err := wire.SetMaterials(message, [][]byte{one, two}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(message, one) || !bytes.Contains(message, two) {
		t.Errorf("%x", message)
	}
	for _, materials := range [][][]byte{{two, one}, {one, two, two}, {make([]byte, 24)}} {
		if err := wire.SetMaterials(message, materials); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("keys that do not fit: %v, want %v", err, wire.ErrMalformed)
		}
	}
}

// TestAttributes: attributes sent in any version are decoded to the same.
func TestAttributes(t *testing.T) {
	t.Parallel()
	for _, v := range wire.Versions() {
		template, err := wire.Template(v, []wire.Attribute{
			wire.NameAttribute("1"),
			{Name: "State", Value: kmip14.StateActive},
			{Name: "Cryptographic Length", Value: int32(256)},
			{Name: "Compromise Date", Value: time.Unix(1e9, 0)},
			{Name: "x-note", Value: wire.Text("2")},
		})
		if err != nil {
			t.Fatal(err)
		}
		frame, err := wire.Encode(ttlv.NewStruct(kmip14.TagResponseMessage, template))
		if err != nil {
			t.Fatal(err)
		}
		err = wire.Decode(frame, func(m wire.Item) error {
			inner, err := m.Struct(wire.TemplateTag(v))
			if err != nil {
				return err
			}
			var names []string
			for got, err := range wire.Attributes(v, inner) {
				if err != nil {
					return err
				}
				names = append(names, got.Name)
				switch got.Name {
				case "Compromise Date":
					if at, err := got.Value.AsTime(); err != nil || at.Unix() != 1e9 {
						t.Errorf("%s: date %v, %v", v, at, err)
					}
				case "x-note":
					if s, err := got.Value.AsText(); err != nil || s != "2" {
						t.Errorf("%s: note %q, %v", v, s, err)
					}
				}
			}
			if got := strings.Join(names, ","); got != "Name,State,Cryptographic Length,Compromise Date,x-note" {
				t.Errorf("%s: %s", v, got)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", v, err)
		}
	}
	if _, err := wire.Template(wire.Version{Major: 2}, []wire.Attribute{{Name: "No Such Thing", Value: int32(1)}}); err == nil {
		t.Error("an attribute that KMIP has not was sent under a tag")
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for _, v := range wire.Versions() {
		if got, err := wire.ParseVersion(v.String()); err != nil || got != v {
			t.Errorf("%s: %v, %v", v, got, err)
		}
	}
	for _, s := range []string{"", "1", "1.5", "2.1", "3.0", "1.2 ", "01.2"} {
		if v, err := wire.ParseVersion(s); err == nil {
			t.Errorf("%q is version %v", s, v)
		}
	}
}

// FuzzDecode: no message makes Decode or the accessors panic. A message well-formed here is
// well-formed for the codec library, and the reverse except for the depth.
func FuzzDecode(f *testing.F) {
	f.Add(item(tagResponse, structure, item(tagName, text, []byte("a name"))))
	f.Add(nested(wire.MaxDepth + 1))
	for _, v := range []wire.Version{{Major: 1}, {Major: 2}} {
		template, err := wire.Template(v, []wire.Attribute{wire.NameAttribute("n"), {Name: "State", Value: kmip14.StateActive}})
		if err != nil {
			f.Fatal(err)
		}
		frame, err := wire.Encode(ttlv.NewStruct(kmip14.TagResponseMessage, v.Value(), template))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(frame))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		err := wire.Decode(message, func(m wire.Item) error {
			walk(m)
			return nil
		})
		library := len(message) > 0 && ttlv.TTLV(message).Valid() == nil && ttlv.TTLV(message).FullLen() == len(message)
		switch {
		case err != nil && !errors.Is(err, wire.ErrMalformed):
			t.Errorf("%v is no %v", err, wire.ErrMalformed)
		case err == nil && !library:
			t.Error("well-formed here, and not for the codec library")
		case err != nil && library && !strings.Contains(err.Error(), "nested deeper"):
			t.Errorf("well-formed for the codec library, and here: %v", err)
		}
	})
}

// walk calls every accessor on every item.
func walk(i wire.Item) {
	_, _ = i.AsText()
	_, _ = i.AsEnum()
	_, _ = i.AsInt()
	_, _ = i.AsTime()
	_, _ = i.AsVersion()
	for _, v := range []wire.Version{{Major: 1}, {Major: 2}} {
		for got, err := range wire.Attributes(v, i) {
			_, _ = got, err
		}
	}
	_, _ = i.Text(kmip20.TagAttributes)
	for c := range i.Children() {
		walk(c)
	}
}
