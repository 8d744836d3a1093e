package layout

import (
	"bytes"
	"encoding/hex"
	"fmt"
)

const (
	sealTable    = "[seal]"
	sealMAC      = "mac"
	sealPrevious = "mac_previous"
)

// Sealed is a parsed settings file: the settings, the bytes covered by the seal, and the seal.
type Sealed struct {
	Settings Settings
	Body     []byte // everything before the [seal] table
	MAC      [32]byte
	Previous *[32]byte // mac_previous: under the KEK before the present one
}

// ParseSettings parses a settings file and copies everything kept. Errors are *SettingsError with
// the line. Nothing is proven: VerifySettings of package keys checks the seal. The settings come
// from Body alone, and the rest of the file has the one form written by AppendSeal. So bytes
// outside the seal have no effect.
func ParseSettings(b []byte) (*Sealed, error) {
	if len(b) > MaxSettings {
		return nil, &SettingsError{Reason: fmt.Sprintf("%d bytes, over %d", len(b), MaxSettings)}
	}
	at := findSeal(b)
	if at < 0 {
		return nil, &SettingsError{Reason: "no [seal] table at the end"}
	}
	s := &Sealed{Body: bytes.Clone(b[:at])}
	if err := s.parseSeal(b[at:], 1+bytes.Count(s.Body, []byte("\n"))); err != nil {
		return nil, err
	}
	settings, err := ParseBody(s.Body)
	if err != nil {
		return nil, err
	}
	s.Settings = *settings
	return s, nil
}

// findSeal returns the offset of the last line that begins the [seal] table, or -1.
func findSeal(b []byte) int {
	if at := bytes.LastIndex(b, []byte("\n"+sealTable)); at >= 0 {
		return at + 1
	}
	if bytes.HasPrefix(b, []byte(sealTable)) {
		return 0
	}
	return -1
}

// parseSeal parses the table, which begins at the given line of the file.
func (s *Sealed) parseSeal(table []byte, line int) error {
	fail := func(reason string) error { return &SettingsError{Line: line, Reason: reason} }
	head, rest, ok := bytes.Cut(table, []byte("\n"))
	if !ok || string(head) != sealTable {
		return fail("the line that begins the seal is not [seal] alone")
	}
	line++
	mac, rest, err := cutMAC(rest, sealMAC)
	if err != nil {
		return fail(err.Error())
	}
	s.MAC = *mac
	if len(rest) == 0 {
		return nil
	}
	line++
	if s.Previous, rest, err = cutMAC(rest, sealPrevious); err != nil {
		return fail(err.Error() + ", and nothing else may stand after mac")
	}
	line++
	if len(rest) > 0 {
		return fail("nothing may stand after the seal")
	}
	return nil
}

// cutMAC parses the line `key = "64 lower-case hex digits"` and returns the bytes after the line.
func cutMAC(b []byte, key string) (*[32]byte, []byte, error) {
	const digits = 2 * 32
	prefix, suffix := key+` = "`, "\"\n"
	n := len(prefix) + digits + len(suffix)
	wrong := fmt.Errorf("%s is not a line %s…\" with %d lower-case hex digits", key, prefix, digits)
	if len(b) < n || string(b[:len(prefix)]) != prefix || string(b[n-len(suffix):n]) != suffix {
		return nil, nil, wrong
	}
	text := b[len(prefix) : len(prefix)+digits]
	var mac [32]byte
	if _, err := hex.Decode(mac[:], text); err != nil || !bytes.Equal(text, bytes.ToLower(text)) {
		return nil, nil, wrong
	}
	return &mac, b[n:], nil
}

// AppendSeal appends the [seal] table to body. body must end with a newline: AppendSeal panics
// over another body, and ParseBody refuses one.
func AppendSeal(body []byte, mac [32]byte, previous *[32]byte) []byte {
	if len(body) > 0 && body[len(body)-1] != '\n' {
		panic("layout: settings to seal do not end with a newline")
	}
	b := fmt.Appendf(bytes.Clone(body), "%s\n%s = \"%x\"\n", sealTable, sealMAC, mac)
	if previous != nil {
		b = fmt.Appendf(b, "%s = \"%x\"\n", sealPrevious, *previous)
	}
	return b
}
