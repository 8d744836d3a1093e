package layout

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

func TestDecodeRecordRefuses(t *testing.T) {
	records := loadMoveVectors(t).Records
	deep := records[4].Record
	for _, c := range []struct {
		name string
		edit func([]byte) []byte
		want error
		says string
	}{
		{"nothing", func([]byte) []byte { return nil }, ErrIllFormed, ""},
		{"a hole", func(r []byte) []byte { clear(r); return r }, ErrIllFormed, ""},
		{"magic of a file", func(r []byte) []byte { copy(r, Magic); return r }, ErrIllFormed, ""},
		{"short", func(r []byte) []byte { return r[:511] }, ErrIllFormed, ""},
		{"version", func(r []byte) []byte { r[8] = 2; return r }, ErrUnsupported, "version 2"},
		{"kind 0", func(r []byte) []byte { r[10] = 0; return r }, ErrDamaged, "kind 0"},
		{"kind 4", func(r []byte) []byte { r[10] = 4; return r }, ErrDamaged, "kind 4"},
		{"goal 2", func(r []byte) []byte { r[11] = 2; return r }, ErrUnsupported, "reserved"},
		{"byte 12", func(r []byte) []byte { r[12] = 1; return r }, ErrUnsupported, "reserved"},
		{"byte 80", func(r []byte) []byte { r[80] = 1; return r }, ErrUnsupported, "reserved"},
		{"byte 479", func(r []byte) []byte { r[479] = 1; return r }, ErrUnsupported, "reserved"},
		{"sequence 0", func(r []byte) []byte { clear(r[16:24]); return r }, ErrDamaged, "sequence 0"},
		{"no id", func(r []byte) []byte { clear(r[24:40]); return r }, ErrDamaged, "no id"},
		{"deep without companion", func(r []byte) []byte { clear(r[56:72]); return r }, ErrDamaged, "companion"},
		{"encrypt with companion", func(r []byte) []byte { r[10] = 1; return r }, ErrDamaged, "companion"},
		{"watermark in a unit", func(r []byte) []byte { r[72] = 1; return r }, ErrDamaged, "watermark"},
		{"watermark too great", func(r []byte) []byte { binary.LittleEndian.PutUint64(r[72:], 1<<63-512); return r }, ErrDamaged, "watermark"},
		{"watermark beyond int64", func(r []byte) []byte { binary.LittleEndian.PutUint64(r[72:], 1<<63); return r }, ErrDamaged, "watermark"},
	} {
		r, err := DecodeRecord(c.edit(bytes.Clone(deep)))
		if r != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v, want %v with %q", c.name, r, err, c.want, c.says)
		}
	}
}

// FuzzRecord checks that every record that decodes encodes to the same bytes.
func FuzzRecord(f *testing.F) {
	for _, r := range loadMoveVectors(f).Records {
		f.Add([]byte(r.Record))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b)
		if err != nil {
			if r != nil || !errors.Is(err, ErrIllFormed) && errors.Is(err, ErrDamaged) == errors.Is(err, ErrUnsupported) {
				t.Fatalf("%+v, error %v", r, err)
			}
			return
		}
		if got := r.AppendRecord(nil); !bytes.Equal(got, b) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", b, r, got)
		}
	})
}

func TestMoveNames(t *testing.T) {
	id := FileID(loadMoveVectors(t).MoveID)
	for name, want := range map[string]struct{ gone, ok bool }{
		".vmcryptfs-move-a0a1a2a3-a4a5-46a7-a8a9-aaabacadaeaf":  {false, true},
		".vmcryptfs-gone-a0a1a2a3-a4a5-46a7-a8a9-aaabacadaeaf":  {true, true},
		".vmcryptfs-move-A0A1A2A3-a4a5-46a7-a8a9-aaabacadaeaf":  {},
		".vmcryptfs-move-a0a1a2a3-a4a5-46a7-a8a9-aaabacadaeaf1": {},
		".vmcryptfs-move-": {},
		".vmcryptfs-3c46e6b0fa3ed78b-59f7b120e468c3d2-78d9de42ce5c2992": {},
		"move-a0a1a2a3-a4a5-46a7-a8a9-aaabacadaeaf":                     {},
	} {
		got, gone, ok := ParseMoveName(name)
		if ok != want.ok || ok && (gone != want.gone || got != id) {
			t.Errorf("%s: %v, %v, %v", name, got, gone, ok)
		}
		if ok && name != MoveName(got) && name != GoneName(got) || !Reserved(name) && ok {
			t.Errorf("%s is no name of %v", name, got)
		}
	}
}
