package words

import "testing"

func TestLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain: a \"quoted\" name":  `plain: a "quoted" name`,
		"one\ntwo\n":                "one; two",
		"clear\x1b[2Jscreen":        `clear\x1b[2Jscreen`,
		"not UTF-8 \xff":            `not UTF-8 \xff`,
		"Größe, 長さ":                 "Größe, 長さ",
		"right-to-left \u202e eman": `right-to-left \u202e eman`,
	} {
		if got := Line(in); got != want {
			t.Errorf("Line(%q) = %q, want %q", in, got, want)
		}
	}
}
