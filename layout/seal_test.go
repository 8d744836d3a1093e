package layout

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func testMAC(b byte) [32]byte { return [32]byte(bytes.Repeat([]byte{b}, 32)) }

func TestSealRoundTrip(t *testing.T) {
	mac, previous := testMAC(0xab), testMAC(0xcd)
	s := exampleSettings()
	for _, p := range []*[32]byte{nil, &previous} {
		text := AppendSeal(s.Encode(), mac, p)
		got, err := ParseSettings(text)
		if err != nil {
			t.Fatal(err)
		}
		clear(text) // the parsed settings keep no reference to text
		if !reflect.DeepEqual(got.Settings, s) || string(got.Body) != exampleText || got.MAC != mac {
			t.Errorf("got %+v", got)
		}
		if !reflect.DeepEqual(got.Previous, p) {
			t.Errorf("mac_previous %x, want %x", got.Previous, p)
		}
	}
}

// TestSealIsTheLast puts [seal] into the body, in a string and in a comment: the seal is the last
// such line, and the body is everything before.
func TestSealIsTheLast(t *testing.T) {
	body := strings.Replace(exampleText, "corp", "[seal]", 1) + "#\n#[seal]\n"
	s, err := ParseSettings(AppendSeal([]byte(body), testMAC(1), nil))
	if err != nil {
		t.Fatal(err)
	}
	if string(s.Body) != body || s.Settings.Provider != "[seal]" {
		t.Errorf("body %q, provider %q", s.Body, s.Settings.Provider)
	}
}

func TestAppendSealIsPure(t *testing.T) {
	body := append(make([]byte, 0, 1000), exampleText...)
	a := AppendSeal(body, testMAC(1), nil)
	b := AppendSeal(body, testMAC(2), nil)
	if bytes.Equal(a, b) || string(body) != exampleText {
		t.Error("two seals of one body share memory")
	}
	defer func() {
		if recover() == nil {
			t.Error("a body without a newline at its end was sealed")
		}
	}()
	AppendSeal([]byte("format = 1"), testMAC(1), nil)
}

func TestParseSettingsRefuses(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	mac := "mac = \"" + hex + "\"\n"
	for _, c := range []struct {
		name, text string
		line       int
		says       string
	}{
		{"empty", "", 0, "no [seal]"},
		{"no seal", exampleText, 0, "no [seal]"},
		{"seal in a comment", exampleText + "# [seal]\n" + mac, 0, "no [seal]"},
		{"seal not at the start of a line", exampleText + " [seal]\n" + mac, 0, "no [seal]"},
		{"seal without newline", exampleText + "[seal]", 9, "[seal] alone"},
		{"comment behind the seal", exampleText + "[seal] # x\n" + mac, 9, "[seal] alone"},
		{"CRLF", exampleText + "[seal]\r\n" + mac, 9, "[seal] alone"},
		{"no mac", exampleText + "[seal]\n", 10, "mac is not"},
		{"mac without newline", exampleText + "[seal]\n" + strings.TrimSpace(mac), 10, "mac is not"},
		{"upper case", exampleText + "[seal]\n" + strings.Replace(mac, "abab", "ABAB", 1), 10, "mac is not"},
		{"not hex", exampleText + "[seal]\n" + strings.Replace(mac, "abab", "abxb", 1), 10, "mac is not"},
		{"63 digits", exampleText + "[seal]\n" + strings.Replace(mac, "abab", "aba", 1), 10, "mac is not"},
		{"65 digits", exampleText + "[seal]\n" + strings.Replace(mac, "abab", "ababa", 1), 10, "mac is not"},
		{"other quotes", exampleText + "[seal]\n" + strings.ReplaceAll(mac, `"`, "'"), 10, "mac is not"},
		{"mac_previous alone", exampleText + "[seal]\nmac_previous = \"" + hex + "\"\n", 10, "mac is not"},
		{"key after mac", exampleText + "[seal]\n" + mac + "clear = [\"*\"]\n", 11, "nothing else"},
		{"table after mac", exampleText + "[seal]\n" + mac + "[x]\n", 11, "nothing else"},
		{"comment after mac", exampleText + "[seal]\n" + mac + "#\n", 11, "nothing else"},
		{"newline after mac", exampleText + "[seal]\n" + mac + "\n", 11, "nothing else"},
		{"mac twice", exampleText + "[seal]\n" + mac + mac, 11, "nothing else"},
		{"bad mac_previous", exampleText + "[seal]\n" + mac + "mac_previous = \"ab\"\n", 11, "mac_previous is not"},
		{"after mac_previous", exampleText + "[seal]\n" + mac + "mac_previous = \"" + hex + "\"\n\n", 12, "nothing may stand"},
		{"two seals", exampleText + "[seal]\n" + mac + "[seal]\n" + mac, 9, `unknown key "seal"`},
		{"key in front", "clear = [\"*\"]\n" + exampleText + "[seal]\n" + mac, 8, "already been defined"},
		{"seal alone", "[seal]\n" + mac, 1, "does not end with a newline"},
		{"10 MiB", strings.Repeat("#", 10<<20), 0, "over 1048576"},
		{"one over", exampleText + strings.Repeat("#", MaxSettings-len(exampleText)-len(mac)-7) + "\n[seal]\n" + mac, 0, "over 1048576"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := ParseSettings([]byte(c.text))
			var e *SettingsError
			if s != nil || !errors.As(err, &e) {
				t.Fatalf("ParseSettings = %+v, %v, want a *SettingsError", s, err)
			}
			if e.Line != c.line || !strings.Contains(e.Reason, c.says) {
				t.Errorf("line %d, %q, want line %d, %q", e.Line, e.Reason, c.line, c.says)
			}
		})
	}
	greatest := exampleText + strings.Repeat("#", MaxSettings-len(exampleText)-len(mac)-8) + "\n[seal]\n" + mac
	if _, err := ParseSettings([]byte(greatest)); len(greatest) != MaxSettings || err != nil {
		t.Errorf("%d bytes: %v", len(greatest), err)
	}
}

// FuzzSettings checks that the parts of a parsed file give the same file, byte for byte, and that
// the settings come from the body alone, encode, and parse back.
func FuzzSettings(f *testing.F) {
	v := loadVectors(f)
	previous := testMAC(7)
	f.Add([]byte(v.Settings.Sealed))
	f.Add(AppendSeal([]byte(exampleText), testMAC(1), &previous))
	f.Add([]byte(loadMoveVectors(f).Settings.Sealed))
	f.Add([]byte(v.Settings.Text + "[seal]\n[seal]\nmac = \"00\"\n"))
	f.Add([]byte(fmt.Sprintf("kek = 1\n%s", v.Settings.Sealed)))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkSettings(t, b)
		if bytes.HasSuffix(b, []byte("\n")) { // the fuzzer would not often keep a seal whole
			checkSettings(t, AppendSeal(b, testMAC(3), nil))
		}
	})
}

func checkSettings(t *testing.T, b []byte) {
	s, err := ParseSettings(b)
	if err != nil {
		var e *SettingsError
		if !errors.As(err, &e) || e.Line < 0 || e.Line > 1+bytes.Count(b, []byte("\n")) {
			t.Fatalf("error %#v", err)
		}
		return
	}
	if got := AppendSeal(s.Body, s.MAC, s.Previous); !bytes.Equal(got, b) {
		t.Fatalf("%q was read as %q", b, got)
	}
	if err := s.Settings.Check(); err != nil {
		t.Fatalf("settings that were read: %v", err)
	}
	again, err := ParseBody(s.Settings.Encode())
	if err != nil || !sameSettings(again, &s.Settings) {
		t.Fatalf("%+v was read back as %+v, %v", s.Settings, again, err)
	}
}

// sameSettings treats an empty list like none: Encode leaves both out.
func sameSettings(a, b *Settings) bool {
	return a.Format == b.Format && a.ID == b.ID && a.Provider == b.Provider && a.KEK == b.KEK &&
		a.Serial == b.Serial && slices.Equal(a.Encrypt, b.Encrypt) && slices.Equal(a.Clear, b.Clear) &&
		slices.Equal(a.Moves, b.Moves) && slices.Equal(a.Policies, b.Policies) && slices.EqualFunc(a.Places, b.Places, samePlace)
}

func samePlace(a, b Place) bool {
	return slices.Equal(a.Encrypt, b.Encrypt) && slices.Equal(a.Clear, b.Clear) && a.Path == b.Path && a.ID == b.ID &&
		a.Policy == b.Policy && a.KEK == b.KEK && a.Adopt == b.Adopt
}
