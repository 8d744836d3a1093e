package layout

import "testing"

// TestTemporary: names of temporaries, and names that are none.
func TestTemporary(t *testing.T) {
	t.Parallel()
	const digits = "0123456789abcdef"
	for name, want := range map[string]string{
		TemporaryPrefix(digits) + digits + "-" + digits:                digits,
		TemporaryPrefix(digits) + digits:                               "",
		TemporaryPrefix(digits) + digits + "-" + digits + "-" + digits: "",
		TemporaryPrefix("0123") + digits + "-" + digits:                "",
		TemporaryPrefix("0123456789abcdeg") + digits + "-" + digits:    "",
		MoveName(FileID{1}): "", GoneName(FileID{1}): "", PlaceTag: "", "": "", ReservedPrefix: "",
	} {
		if host, ok := ParseTemporary(name); host != want || ok != (want != "") {
			t.Errorf("ParseTemporary(%q) = %q, %t, want %q", name, host, ok, want)
		}
	}
}
