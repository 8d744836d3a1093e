package mounts

import (
	"slices"
	"testing"
)

func TestSplitOptions(t *testing.T) {
	t.Parallel()
	for list, want := range map[string][]string{
		"":                       {""},
		"ro":                     {"ro"},
		"ro,,kek=a":              {"ro", "", "kek=a"},
		`kek="a,b",ro`:           {"kek=a,b", "ro"},
		`kek=a\,b,ro`:            {"kek=a,b", "ro"},
		`kek="a\"b",ro`:          {`kek=a"b`, "ro"},
		`kek=a\\,ro`:             {`kek=a\`, "ro"},
		`kek=C:\x,ro`:            {`kek=C:\x`, "ro"},
		`kek=a"b,ro`:             {`kek=a"b`, "ro"},
		`kms="/a,b/c=d",kek="x"`: {"kms=/a,b/c=d", "kek=x"},
		`kek=a\`:                 {`kek=a\`},
	} {
		if got, closed := SplitOptions(list); !closed || !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", list, got, want)
		}
	}
}

func FuzzEscapeOption(f *testing.F) {
	f.Add(`a,b\"c`)
	f.Fuzz(func(t *testing.T, value string) {
		if got, closed := SplitOptions("ro,kek=" + EscapeOption(value) + ",rw"); !closed || !slices.Equal(got, []string{"ro", "kek=" + value, "rw"}) {
			t.Errorf("%q came back as %q", value, got)
		}
	})
}
