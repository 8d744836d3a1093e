package layout

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

func exampleSettings() Settings {
	return Settings{
		Format:   1,
		ID:       datastoreID,
		Provider: "corp",
		KEK:      "6f1c-42",
		Serial:   7,
		Encrypt:  []string{"*.vmx", `a"b\\c`},
		Clear:    []string{"*.iso", "Ä?[!x-z].txt"},
	}
}

const exampleText = `format = 1
id = "00112233-4455-6677-8899-aabbccddeeff"
provider = "corp"
kek = "6f1c-42"
serial = 7
encrypt = ["*.vmx", "a\"b\\\\c"]
clear = ["*.iso", "Ä?[!x-z].txt"]

`

func TestSettingsEncode(t *testing.T) {
	s := exampleSettings()
	if got := string(s.Encode()); got != exampleText {
		t.Errorf("got:\n%s\nwant:\n%s", got, exampleText)
	}
}

func TestSettingsRoundTrip(t *testing.T) {
	odd := Settings{Format: 1, Provider: "\"'\\ = [seal]", KEK: "kéy\u2028#", Serial: math.MaxInt64}
	bare := Settings{Format: 1, ID: datastoreID, Provider: "p", KEK: "k", Serial: 1}
	long := Settings{Format: 1, Provider: strings.Repeat("p", 64), KEK: strings.Repeat("é", 128), Serial: 2}
	for _, want := range []Settings{exampleSettings(), odd, bare, long} {
		if err := want.Check(); err != nil {
			t.Errorf("%+v: %v", want, err)
		}
		got, err := ParseBody(want.Encode())
		if err != nil {
			t.Errorf("%s: %v", want.Encode(), err)
		} else if !reflect.DeepEqual(*got, want) {
			t.Errorf("got %+v, want %+v", *got, want)
		}
	}
}

// TestParseBody parses texts as a person may write them.
func TestParseBody(t *testing.T) {
	text := "\ufeff# by hand\r\nserial=7 # grows\n\"id\" = '00112233-4455-6677-8899-AABBCCDDEEFF'\n" +
		"kek = '6f1c-42'\nprovider = \"\\u0063orp\"\nclear = [\n  '*.iso', # media\n  \"Ä?[!x-z].txt\",\n]\n" +
		"encrypt = ['*.vmx', 'a\"b\\\\c']\nformat = 0x1\n"
	got, err := ParseBody([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if want := exampleSettings(); !reflect.DeepEqual(*got, want) {
		t.Errorf("got %+v, want %+v", *got, want)
	}
}

func TestParseBodyRefuses(t *testing.T) {
	replace := func(from, to string) string {
		if !strings.Contains(exampleText, from) {
			t.Fatalf("no %q in the example", from)
		}
		return strings.Replace(exampleText, from, to, 1)
	}
	for _, c := range []struct {
		name, text string
		line       int
		says       string
	}{
		{"empty", "", 1, "does not end with a newline"},
		{"blank", "\n", 0, `key "format" is missing`},
		{"no newline at the end", "format = 1\nid = 2", 2, "does not end with a newline"},
		{"no format", replace("format = 1\n", ""), 0, `key "format" is missing`},
		{"no id", replace("id = ", "# "), 0, `key "id" is missing`},
		{"no provider", replace("provider = ", "# "), 0, `key "provider" is missing`},
		{"no kek", replace("kek = ", "# "), 0, `key "kek" is missing`},
		{"no serial", replace("serial = ", "# "), 0, `key "serial" is missing`},
		{"unknown key", replace("serial", "sreial"), 5, `unknown key "sreial"`},
		{"unknown key at the end", exampleText + "\n\n  colour = [\n'red',\n]\n", 11, `unknown key "colour"`},
		{"unknown key, quoted", exampleText + "\"a\\tb\" = 1\n", 9, `unknown key "a\tb"`},
		{"unknown key, in a string before", replace(`"corp"`, `"colour = 1"`) + "colour = 1\n", 9, `unknown key "colour"`},
		{"key in other case", replace("kek", "KEK"), 4, `unknown key "KEK"`},
		{"key in two cases", exampleText + "KEK = \"x\"\n", 9, `unknown key "KEK"`},
		{"unknown table", exampleText + "[mount]\na = 1\n", 9, `unknown key "mount"`},
		{"unknown array of tables", exampleText + "[[mount]]\n", 9, `unknown key "mount"`},
		{"dotted key", exampleText + "a.b = 1\n", 9, "a dot outside of a string"},
		{"dotted key, quoted", exampleText + "\"a\".'b' = 1\n", 9, "a dot outside of a string"},
		{"dotted table", exampleText + "[a.b]\n", 9, "a dot outside of a string"},
		{"inline table", exampleText + "a = {b = 1}\n", 9, "inline table"},
		{"string over lines", replace(`"corp"`, "\"\"\"\ncorp\"\"\""), 3, "string over several lines"},
		{"literal over lines", replace(`"corp"`, "'''corp'''"), 3, "string over several lines"},
		{"string without end", replace(`"corp"`, `"corp`), 3, "string without end"},
		{"string ends in a backslash", replace(`"corp"`, "\"corp\\"), 3, "string without end"},
		{"carriage return", replace("serial = 7", "serial = 7\rx = 1"), 5, "carriage return"},
		{"carriage return in a comment", replace("serial = 7", "serial = 7 # \rx = 1"), 5, "carriage return"},
		{"carriage return in a string", replace("corp", "co\rrp"), 3, "string without end"},
		{"array too deep", replace(`clear = ["*.iso"`, "clear = [[\n[1]], \"*.iso\""), 8, "too deep"},
		{"array of arrays", replace(`clear = ["*.iso"`, "clear = [[1], \"*.iso\""), 7, "clear: not an array of strings"},
		{"seal in the body", exampleText + "[seal]\nmac = \"\"\n", 9, `unknown key "seal"`},
		{"key twice", exampleText + "kek = \"x\"\n", 9, "already been defined"},
		{"no TOML", replace("serial = 7", "serial 7"), 5, "expected"},
		{"not UTF-8", replace("corp", "co\xffrp"), 3, "UTF-8"},
		{"NUL", replace("corp", "co\x00rp"), 3, "control characters"},
		{"format 0", replace("format = 1", "format = 0"), 1, "format 0"},
		{"format of text", replace("format = 1", "format = \"1\""), 1, "format: not an integer"},
		{"id too short", replace("-aabbccddeeff", ""), 2, "id: not a UUID"},
		{"id a number", replace(`id = "00112233-4455-6677-8899-aabbccddeeff"`, "id = 5"), 2, "id: not a string"},
		{"provider empty", replace(`"corp"`, `""`), 3, "provider: empty"},
		{"provider too long", replace("corp", strings.Repeat("x", 65)), 3, "provider: 65 bytes"},
		{"provider with control", replace("corp", `a\u0000b`), 3, "provider: control character"},
		{"kek a table", replace(`kek = "6f1c-42"`, "kek = true"), 4, "kek: not a string"},
		{"kek too long", replace("6f1c-42", strings.Repeat("x", 257)), 4, "kek: 257 bytes"},
		{"serial 0", replace("serial = 7", "serial = 0"), 5, "serial: not between"},
		{"serial negative", replace("serial = 7", "serial = -1"), 5, "serial: not between"},
		{"serial over", replace("serial = 7", "serial = 9223372036854775808"), 5, "out of range"},
		{"serial a float", replace("serial = 7", "serial = 7e0"), 5, "serial: not an integer"},
		{"encrypt one string", replace(`encrypt = ["*.vmx", "a\"b\\\\c"]`, `encrypt = "*.vmx"`), 6, "encrypt: not an array of strings"},
		{"encrypt of numbers", replace(`encrypt = ["*.vmx"`, `encrypt = [5`), 6, "encrypt: not an array of strings"},
		{"bad glob", replace(`"*.vmx"`, `"[*.vmx"`), 6, `encrypt: glob "[*.vmx": syntax error`},
		{"empty glob", replace(`"*.iso"`, `""`), 7, `clear: glob "": empty`},
		{"glob over lines", replace(`["*.iso"`, "[\n\n\n\"a/b\""), 7, `clear: glob "a/b": has a slash`},
		{"too long", exampleText + "#" + strings.Repeat("x", MaxSettings) + "\n", 0, "over 1048576"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := ParseBody([]byte(c.text))
			var e *SettingsError
			if s != nil || !errors.As(err, &e) {
				t.Fatalf("ParseBody = %+v, %v, want a *SettingsError", s, err)
			}
			if e.Line != c.line || !strings.Contains(e.Reason, c.says) {
				t.Errorf("line %d, %q, want line %d, %q", e.Line, e.Reason, c.line, c.says)
			}
			if says := fmt.Sprintf("line %d: ", c.line); strings.Contains(err.Error(), says) != (c.line > 0) {
				t.Errorf("%q does not name line %d", err, c.line)
			}
		})
	}
}

func TestParseBodyOfNewerFormat(t *testing.T) {
	text := "colour = 'red'\nformat = 2\n"
	_, err := ParseBody([]byte(text))
	var e *SettingsError
	if !errors.Is(err, ErrUnsupported) || !errors.As(err, &e) || e.Line != 2 {
		t.Errorf("error %v, want ErrUnsupported at line 2", err)
	}
	s := exampleSettings()
	s.Format = 2
	if err := s.Check(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Check: %v, want ErrUnsupported", err)
	}
	if _, err := ParseBody([]byte(exampleText + "colour = 1\n")); errors.Is(err, ErrUnsupported) {
		t.Errorf("unknown key of this format: %v", err)
	}
}

func TestSettingsCheck(t *testing.T) {
	for says, edit := range map[string]func(*Settings){
		"provider: empty":                 func(s *Settings) { s.Provider = "" },
		"kek: not UTF-8":                  func(s *Settings) { s.KEK = "\xff" },
		"serial: not between":             func(s *Settings) { s.Serial = 1 << 63 },
		"encrypt: glob \"/\": has":        func(s *Settings) { s.Encrypt = []string{"/"} },
		"clear: glob \"\\n\": has a cont": func(s *Settings) { s.Clear = []string{"a", "\n"} },
	} {
		s := exampleSettings()
		edit(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Check = %v, want %q", err, says)
		}
	}
}

// TestParseBodyIsBounded parses texts that cost the toml package gigabytes or seconds. Anybody
// able to write BACKING chooses the text, since the file is parsed before the seal is checked.
func TestParseBodyIsBounded(t *testing.T) {
	fill := func(s string) string { return strings.Repeat(s, (MaxSettings-100)/len(s)) }
	for name, text := range map[string]string{
		"nested arrays":   "a = " + fill("[") + "\n",
		"dotted key":      fill("a.") + "a = 1\n",
		"dotted table":    "[" + fill("a.") + "a]\n",
		"quoted key":      fill(`"a".`) + "a = 1\n",
		"key of literals": fill(`'\'.`) + "a = 1\n",
		"escaped quotes":  fill(`"\"".`) + "a = 1\n",
		"nested tables":   "a = " + fill("{a=") + "\n",
		"after a comment": "# \n" + fill("a.") + "a = 1\n",
	} {
		t.Run(name, func(t *testing.T) {
			allocated := testing.AllocsPerRun(1, func() {
				var e *SettingsError
				if _, err := ParseBody([]byte(text)); !errors.As(err, &e) || e.Line == 0 {
					t.Errorf("error %v", err)
				}
			})
			if allocated > 100 {
				t.Errorf("%v allocations: the toml package has seen it", allocated)
			}
		})
	}
}
