package backing

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"vmcryptfs/layout"
)

// TestJudge: the form by content and class.
func TestJudge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plant(t, dir, "empty", "")
	plant(t, dir, "text", "some text")
	plant(t, dir, "descriptor", descriptor)
	plant(t, dir, "long", descriptor+strings.Repeat("#", layout.MaxDescriptor))
	plant(t, dir, "short", layout.Magic)
	plantEncrypted(t, filepath.Join(dir, "encrypted"), []byte(layout.Magic), nil, 0)
	plantParts(t, filepath.Join(dir, "almost"), layout.DataOffset-1, part{0, header(1)})
	for _, c := range []struct {
		content                 string
		encrypt, inspect, clear Form
		err                     error
	}{
		{"empty", Empty, Empty, Empty, nil},
		{"text", Plain, Plain, Clear, nil},
		{"descriptor", Plain, Descriptor, Clear, nil},
		{"long", Plain, Plain, Clear, nil},
		{"encrypted", Encrypted, Encrypted, Encrypted, nil},
		{"short", Empty, Empty, Empty, layout.ErrDamaged},
		{"almost", Empty, Empty, Empty, layout.ErrDamaged},
	} {
		b := open(t, filepath.Join(dir, c.content))
		for class, want := range map[layout.Class]Form{layout.Encrypt: c.encrypt, layout.Inspect: c.inspect, layout.Clear: c.clear} {
			got, err := Judge(b, layout.Verdict{Class: class})
			if got != want || !errors.Is(err, c.err) {
				t.Errorf("%s in class %v: %v, %v, want %v, %v", c.content, class, got, err, want, c.err)
			}
		}
	}
}

func TestForm(t *testing.T) {
	t.Parallel()
	for form, want := range map[Form]struct {
		word  string
		clear bool
		class layout.Class
	}{
		Empty:      {"empty", false, layout.Clear},
		Encrypted:  {"encrypted", false, layout.Clear},
		Clear:      {"clear", true, layout.Clear},
		Descriptor: {"clear", true, layout.Inspect},
		Plain:      {"unencrypted", false, layout.Clear},
	} {
		if form.String() != want.word || form.IsClear() != want.clear || form.Class() != want.class {
			t.Errorf("form %d: %v, clear by right %t, class %v, want %+v", form, form, form.IsClear(), form.Class(), want)
		}
	}
}
