package kmip

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// parseConfig parses the text of a kms.toml. The toml package gives an error's line only where a
// value is decoded. So every value is decoded here, wanted or not: an unknown key by a type that
// accepts no value.
func parseConfig(text []byte) ([]Config, error) {
	var top map[string]toml.Primitive
	meta, err := toml.Decode(string(text), &top)
	if err != nil {
		return nil, configError(err)
	}
	var configs []Config
	for _, key := range meta.Keys() {
		switch {
		case key[0] != "provider":
			return nil, configError(refuse(&meta, top, key))
		case len(key) == 1 && meta.Type(key...) != "Hash":
			return nil, configError(meta.PrimitiveDecode(top["provider"], &wrong{"expected a table [provider.NAME]"}))
		case len(key) == 2:
			c, err := parseProvider(&meta, top["provider"], key[1])
			if err != nil {
				return nil, configError(err)
			}
			configs = append(configs, c)
		}
	}
	if len(configs) == 0 {
		return nil, &ConfigError{Reason: "no provider: expected a table [provider.NAME]"}
	}
	return configs, nil
}

// refuse returns the error, with a line, for an unwanted top-level key. The toml package knows no
// line of a table implied by inner tables, so the error names the first inner one.
func refuse(meta *toml.MetaData, top map[string]toml.Primitive, key toml.Key) error {
	at := top[key[0]]
	for _, part := range key[1:] {
		var table map[string]toml.Primitive
		if err := meta.PrimitiveDecode(at, &table); err != nil {
			return err
		}
		at = table[part]
	}
	return meta.PrimitiveDecode(at, &unwanted{"a table [provider.NAME]"})
}

// parseProvider decodes the table of one provider.
func parseProvider(meta *toml.MetaData, all toml.Primitive, name string) (Config, error) {
	c := Config{Name: name}
	var tables map[string]toml.Primitive
	if err := meta.PrimitiveDecode(all, &tables); err != nil {
		return c, err
	}
	var table map[string]toml.Primitive
	if err := meta.PrimitiveDecode(tables[name], &table); err != nil {
		return c, err
	}
	fields := map[string]any{
		"servers": &list{&c.Servers}, "ca": &text{&c.CA}, "cert": &text{&c.Cert}, "key": &text{&c.Key},
		"server_name": &textOrList{&c.ServerNames}, "key_password_file": &text{&c.KeyPassword},
		"version": &text{&c.Version}, "username": &text{&c.Username},
		"password_file": &text{&c.PasswordFile}, "timeout": &duration{&c.Timeout}, "sessions": &count{&c.Sessions},
	}
	for _, key := range meta.Keys() {
		if len(key) != 3 || key[0] != "provider" || key[1] != name {
			continue
		}
		field, ok := fields[key[2]]
		if !ok {
			field = &unwanted{"servers, server_name, ca, cert, key, key_password_file, version, username, password_file, timeout or sessions"}
		}
		if err := meta.PrimitiveDecode(table[key[2]], field); err != nil {
			return c, err
		}
	}
	return c, checkAt(meta, &c, tables[name], table)
}

// checkAt checks the provider's values. An error has the line of the wrong key, or of the table
// lacking a key.
func checkAt(meta *toml.MetaData, c *Config, whole toml.Primitive, table map[string]toml.Primitive) error {
	key, reason := c.check()
	if reason == "" {
		return nil
	}
	if value, ok := table[key]; ok {
		return meta.PrimitiveDecode(value, &wrong{reason})
	}
	err := meta.PrimitiveDecode(whole, &wrong{reason})
	if at, ok := errors.AsType[toml.ParseError](err); ok && key != "" {
		at.LastKey += "." + key
		return at
	}
	return err
}

// configError turns an error of the toml package into a ConfigError.
func configError(err error) error {
	at, ok := errors.AsType[toml.ParseError](err)
	if !ok {
		return &ConfigError{Reason: strings.TrimPrefix(err.Error(), "toml: ")}
	}
	return &ConfigError{Line: at.Position.Line, Key: at.LastKey, Reason: at.Message}
}

// The types below decode values of kms.toml; an error names the expected value.

type text struct{ to *string }

func (t *text) UnmarshalTOML(v any) error {
	s, ok := v.(string)
	if !ok || s == "" || !plain(s) {
		return fmt.Errorf("%v: expected a string, not empty, without control characters", v)
	}
	*t.to = s
	return nil
}

type list struct{ to *[]string }

func (l *list) UnmarshalTOML(v any) error {
	array, ok := v.([]any)
	if !ok {
		return fmt.Errorf("%v: expected an array of strings, as [\"kms1.example:5696\"]", v)
	}
	for _, e := range array {
		s, ok := e.(string)
		if !ok {
			return fmt.Errorf("%v: expected a string, as \"kms1.example:5696\"", e)
		}
		*l.to = append(*l.to, s)
	}
	return nil
}

// textOrList decodes a text, or a list of texts.
type textOrList struct{ to *[]string }

func (t *textOrList) UnmarshalTOML(v any) error {
	if s, ok := v.(string); ok {
		*t.to = []string{s}
		return nil
	}
	if err := (&list{t.to}).UnmarshalTOML(v); err != nil {
		return fmt.Errorf("%v: expected a host name, or an array of them, one for each of servers", v)
	}
	return nil
}

type duration struct{ to *time.Duration }

func (d *duration) UnmarshalTOML(v any) error {
	s, _ := v.(string)
	parsed, err := time.ParseDuration(s)
	if err != nil || parsed <= 0 {
		return fmt.Errorf("%v: expected a duration, as \"5s\"", v)
	}
	*d.to = parsed
	return nil
}

type count struct{ to *int }

func (c *count) UnmarshalTOML(v any) error {
	n, ok := v.(int64)
	if !ok || n < 1 || n > MaxSessions {
		return fmt.Errorf("%v: expected a number, 1 to %d", v, MaxSessions)
	}
	*c.to = int(n)
	return nil
}

type unwanted struct{ expected string }

func (u *unwanted) UnmarshalTOML(any) error {
	return fmt.Errorf("unknown key: expected %s", u.expected)
}

type wrong struct{ reason string }

func (w *wrong) UnmarshalTOML(any) error { return errors.New(w.reason) }

// plain reports whether a text may stand in a header and in a message.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
