package layout

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// MaxSettings bounds a settings file in bytes: some 5,000 places.
const MaxSettings = 1 << 20

// settingsFormat is the Format written and parsed by this version.
const settingsFormat = 1

// Settings are the datastore's own: BACKING/.vmcryptfs/datastore.toml.
type Settings struct {
	Format   int    // 1
	ID       FileID // the datastore's id, a UUID
	Provider string
	KEK      string // key identifier for new files
	Serial   uint64 // from 1 to 2^63 - 1; grows by one at every change
	Encrypt  []string
	Clear    []string
	Moves    []FileID // ids of moves under way, at most MaxMoves
	Policies []Policy
	Places   []Place
}

// Clone returns a copy that shares nothing with s.
func (s *Settings) Clone() Settings {
	c := *s
	c.Encrypt, c.Clear = slices.Clone(s.Encrypt), slices.Clone(s.Clear)
	c.Moves, c.Policies, c.Places = slices.Clone(s.Moves), slices.Clone(s.Policies), slices.Clone(s.Places)
	for i := range c.Places {
		p := &c.Places[i]
		p.Encrypt, p.Clear = slices.Clone(p.Encrypt), slices.Clone(p.Clear)
	}
	return c
}

// SettingsError is a fault in a settings file. Err, if not nil, is ErrUnsupported: the format is
// newer.
type SettingsError struct {
	Line   int // from 1; 0 when no one line is at fault: a key is missing, the file too long
	Reason string
	Err    error
}

func (e *SettingsError) Error() string {
	s := e.Reason
	if e.Line > 0 {
		s = fmt.Sprintf("line %d: %s", e.Line, s)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *SettingsError) Unwrap() error { return e.Err }

// Encode returns the text before the [seal] table. The same settings give the same bytes.
// ParseBody parses the text if Check returns nil.
func (s *Settings) Encode() []byte {
	b := fmt.Appendf(nil, "format = %d\nid = %s\nprovider = %s\nkek = %s\nserial = %d\n",
		s.Format, quote(s.ID.String()), quote(s.Provider), quote(s.KEK), s.Serial)
	b = appendList(b, "encrypt", s.Encrypt)
	b = appendList(b, "clear", s.Clear)
	b = appendList(b, "moves", texts(s.Moves))
	b = append(b, '\n')
	for i := range s.Policies {
		b = s.Policies[i].append(b)
	}
	for i := range s.Places {
		b = s.Places[i].append(b)
	}
	return b
}

func texts(ids []FileID) []string {
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = id.String()
	}
	return list
}

func appendList(b []byte, key string, list []string) []byte {
	if len(list) == 0 {
		return b
	}
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quote(s)
	}
	return fmt.Appendf(b, "%s = [%s]\n", key, strings.Join(quoted, ", "))
}

// quote is s as a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Check returns the first fault forbidden in every settings file.
func (s *Settings) Check() error {
	key, err := s.check()
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// check names the key at fault.
func (s *Settings) check() (key string, err error) {
	if s.Format != settingsFormat {
		return "format", ErrUnsupported
	}
	if err := validName(s.Provider, MaxProvider); err != nil {
		return "provider", err
	}
	if err := validName(s.KEK, MaxKeyID); err != nil {
		return "kek", err
	}
	if s.Serial == 0 || s.Serial > math.MaxInt64 {
		return "serial", errors.New("not between 1 and 2^63 - 1")
	}
	if _, err := NewRules(s.Encrypt, nil); err != nil {
		return "encrypt", err
	}
	if _, err := NewRules(nil, s.Clear); err != nil {
		return "clear", err
	}
	if err := checkMoves(s.Moves); err != nil {
		return "moves", err
	}
	if err := s.checkPolicies(); err != nil {
		return "policy", err
	}
	if err := s.checkPlaces(); err != nil {
		return "place", err
	}
	return "", nil
}

// ParseBody reads the text before the [seal] table: TOML without dotted keys, inline
// tables and strings over several lines. Errors are *SettingsError.
func ParseBody(body []byte) (*Settings, error) {
	if len(body) > MaxSettings {
		return nil, &SettingsError{Reason: fmt.Sprintf("over %d bytes", MaxSettings)}
	}
	if !bytes.HasSuffix(body, []byte("\n")) {
		return nil, &SettingsError{Line: 1 + bytes.Count(body, []byte("\n")), Reason: "does not end with a newline"}
	}
	if err := plainTOML(body); err != nil {
		return nil, err
	}
	// A map, since the toml package would match keys of a struct in any case of letters.
	var values map[string]any
	meta, err := toml.Decode(string(body), &values)
	if err != nil {
		return nil, syntaxError(err)
	}
	d := &document{body: body, values: values}
	// The format comes first: a newer format may have keys unknown to this version.
	s := &Settings{Format: int(d.integer("format"))}
	if d.err == nil && s.Format != settingsFormat {
		d.fail("format", "format "+strconv.Itoa(s.Format), ErrUnsupported)
	}
	d.known(meta.Keys(), "format", "id", "provider", "kek", "serial", "encrypt", "clear", "moves", "policy", "place")
	s.ID = d.id("id")
	s.Provider = d.str("provider")
	s.KEK = d.str("kek")
	s.Serial = uint64(max(0, d.integer("serial")))
	s.Encrypt = d.list("encrypt")
	s.Clear = d.list("clear")
	s.Moves = d.ids("moves")
	d.tables("policy", func(t *document) { s.Policies = append(s.Policies, readPolicy(t)) })
	d.tables("place", func(t *document) { s.Places = append(s.Places, readPlace(t)) })
	if key, err := s.check(); err != nil {
		d.fail(key, key+": "+err.Error(), nil)
	}
	if d.err != nil {
		return nil, d.err
	}
	return s, nil
}

func syntaxError(err error) error {
	var p toml.ParseError
	if errors.As(err, &p) {
		return &SettingsError{Line: p.Position.Line, Reason: p.Message}
	}
	return &SettingsError{Reason: err.Error()}
}
