package layout

import (
	"errors"
	"fmt"
	"slices"

	"github.com/BurntSushi/toml"
)

// A document hands out the values of a TOML text one by one and keeps the first error. After an
// error every value is the zero value.
type document struct {
	body   []byte
	values map[string]any
	err    error // a *SettingsError
}

// fail keeps the first error, with the line of key.
func (d *document) fail(key, reason string, err error) {
	if d.err == nil {
		d.err = &SettingsError{Line: d.line(key), Reason: reason, Err: err}
	}
}

// line returns the line where the top-level key is defined, counted from 1, and 0 for an
// undefined key. The toml package gives line numbers of errors only, so line provokes an error:
// with a definition of key put in front of the text, the text's own definition is a duplicate.
func (d *document) line(key string) int {
	if _, ok := d.values[key]; !ok {
		return 0
	}
	var discard map[string]any
	_, err := toml.Decode(quote(key)+" = 0\n"+string(d.body), &discard)
	var p toml.ParseError
	if !errors.As(err, &p) {
		return 0
	}
	return p.Position.Line - 1
}

// known sets an error for the first key outside names.
func (d *document) known(keys []toml.Key, names ...string) {
	for _, k := range keys {
		if !slices.Contains(names, k[0]) {
			d.fail(k[0], fmt.Sprintf("unknown key %q", k[0]), nil)
		}
	}
}

func (d *document) integer(key string) int64 {
	return value[int64](d, key, "an integer")
}

func (d *document) str(key string) string {
	return value[string](d, key, "a string")
}

// value returns the value of a required key as a T.
func value[T any](d *document, key, what string) T {
	v, ok := d.values[key].(T)
	if _, defined := d.values[key]; !defined {
		d.fail(key, fmt.Sprintf("key %q is missing", key), nil)
	} else if !ok {
		d.fail(key, key+": not "+what, nil)
	}
	return v
}

func (d *document) id(key string) FileID {
	text := d.str(key)
	if d.err != nil {
		return FileID{}
	}
	id, err := ParseFileID(text)
	if err != nil {
		d.fail(key, key+": "+err.Error(), nil)
	}
	return id
}

// list is an array of strings, nil if the key is not there.
func (d *document) list(key string) []string {
	if _, ok := d.values[key]; !ok {
		return nil
	}
	array := value[[]any](d, key, "an array of strings")
	var list []string
	for _, v := range array {
		s, ok := v.(string)
		if !ok {
			d.fail(key, key+": not an array of strings", nil)
		}
		list = append(list, s)
	}
	return list
}
