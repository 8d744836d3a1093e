package layout

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// A document hands out the values of a TOML text, or of one table there, one by one and keeps the
// first error. After an error every value is the zero value.
type document struct {
	body   []byte
	values map[string]any
	err    error // a *SettingsError

	table  string // the table's name, "" for the text itself
	header int    // the table's line
}

// fail keeps the first error, with the line of key, in a table that of the table.
func (d *document) fail(key, reason string, err error) {
	switch {
	case d.err != nil:
	case d.table != "":
		d.err = &SettingsError{Line: d.header, Reason: d.table + ": " + reason, Err: err}
	default:
		d.err = &SettingsError{Line: d.line(key), Reason: reason, Err: err}
	}
}

// line returns the line where the top-level key is defined, counted from 1, and 0 for an
// undefined key. The toml package gives line numbers of errors only, so line provokes an error:
// with a definition of key put in front of the text, the text's own definition is a duplicate.
func (d *document) line(key string) int {
	if !d.has(key) {
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

// only sets an error for the first key, in their order, outside names.
func (d *document) only(names ...string) {
	for _, k := range slices.Sorted(maps.Keys(d.values)) {
		d.known([]toml.Key{{k}}, names...)
	}
}

// has reports whether the key is there.
func (d *document) has(key string) bool {
	_, ok := d.values[key]
	return ok
}

// tables has read take up each table of the array key.
func (d *document) tables(key string, read func(*document)) {
	if !d.has(key) || d.err != nil {
		return
	}
	lines := headerLines(d.body, key)
	for i, values := range value[[]map[string]any](d, key, "an array of tables") {
		t := &document{values: values, table: key}
		if i < len(lines) {
			t.header = lines[i]
		}
		read(t)
		if t.err != nil {
			d.err = t.err
			return
		}
	}
}

// headerLines returns the lines, from 1, of the tables [[key]]. Within the limits of plainTOML no
// value begins a line with two brackets.
func headerLines(body []byte, key string) []int {
	var lines []int
	n := 0
	for line := range bytes.Lines(body) {
		n++
		rest, ok := bytes.CutPrefix(bytes.TrimLeft(line, " \t\ufeff"), []byte("[["))
		if ok && strings.Trim(strings.TrimSpace(strings.SplitN(string(rest), "]", 2)[0]), `'"`) == key {
			lines = append(lines, n)
		}
	}
	return lines
}

func (d *document) boolean(key string) bool {
	return value[bool](d, key, "true or false")
}

// optional is "" if the key is not there. A key with an empty value is an error.
func (d *document) optional(key string) string {
	if !d.has(key) {
		return ""
	}
	s := d.str(key)
	if s == "" {
		d.fail(key, key+": empty", nil)
	}
	return s
}

// ids is an array of ids, nil if the key is not there.
func (d *document) ids(key string) []FileID {
	var ids []FileID
	for _, text := range d.list(key) {
		id, err := ParseFileID(text)
		if err != nil {
			d.fail(key, key+": "+err.Error(), nil)
		}
		ids = append(ids, id)
	}
	return ids
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
	if !d.has(key) {
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
