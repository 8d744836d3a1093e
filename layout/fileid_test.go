package layout

import (
	"strings"
	"testing"
)

func TestFileID(t *testing.T) {
	const text = "00112233-4455-6677-8899-aabbccddeeff"
	want := datastoreID
	if got := want.String(); got != text {
		t.Errorf("String() = %q, want %q", got, text)
	}
	for _, s := range []string{text, strings.ToUpper(text)} {
		if got, err := ParseFileID(s); got != want || err != nil {
			t.Errorf("ParseFileID(%q) = %v, %v", s, got, err)
		}
	}
}

func TestParseFileIDRefuses(t *testing.T) {
	for _, s := range []string{
		"", "-", "00112233", "00112233445566778899aabbccddeeff",
		"00112233-4455-6677-8899-aabbccddeef", "00112233-4455-6677-8899-aabbccddeeff0",
		"00112233-4455-6677-8899-aabbccddeefg", "0011223-34455-6677-8899-aabbccddeeff",
		"{00112233-4455-6677-8899-aabbccddeeff}", "00112233-4455-6677-8899-aabbccddeef\n",
	} {
		if id, err := ParseFileID(s); err == nil || id != (FileID{}) {
			t.Errorf("ParseFileID(%q) = %v, %v, want an error", s, id, err)
		}
	}
}
