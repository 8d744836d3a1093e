package main

import (
	"slices"
	"strings"
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
		if got, closed := splitOptions(list); !closed || !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", list, got, want)
		}
	}
}

// TestUnclosedQuote: a quote without an end does not take the options after it along.
func TestUnclosedQuote(t *testing.T) {
	t.Parallel()
	for _, list := range []string{`kek="a,ro`, `kek="`, `kek="a\"`, `kek="a",kms="b,ro`} {
		var o mountOptions
		if err := o.add(list, true); err == nil || !strings.Contains(err.Error(), "close the quotes") {
			t.Errorf("%s: %v, options %+v", list, err, o)
		}
	}
}

func FuzzEscapeOption(f *testing.F) {
	f.Add(`a,b\"c`)
	f.Fuzz(func(t *testing.T, value string) {
		if got, closed := splitOptions("ro,kek=" + escapeOption(value) + ",rw"); !closed || !slices.Equal(got, []string{"ro", "kek=" + value, "rw"}) {
			t.Errorf("%q came back as %q", value, got)
		}
	})
}
