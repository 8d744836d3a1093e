package wire

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// Failure is a file or directory that was not done, with the reason.
type Failure struct {
	Path string // below BACKING
	Err  error
}

// failure is a Failure in JSON. A path other than UTF-8 is also in raw, as base64 of the bytes.
type failure struct {
	Path string `json:"path"`
	Raw  []byte `json:"raw,omitempty"`
	Error
}

// MarshalJSON gives {"path", "raw", "error", "reason"}, raw only where path is not UTF-8.
func (f Failure) MarshalJSON() ([]byte, error) {
	v := failure{Path: f.Path, Error: *NewError(f.Err)}
	if !utf8.ValidString(f.Path) {
		v.Raw = []byte(f.Path)
	}
	var text bytes.Buffer
	out := json.NewEncoder(&text)
	out.SetEscapeHTML(false) // the surrounding encoder escapes HTML if asked to
	err := out.Encode(v)
	return text.Bytes(), err
}

// UnmarshalJSON reads the form of MarshalJSON: the path has its bytes again, and Err is an *Error.
func (f *Failure) UnmarshalJSON(text []byte) error {
	var v failure
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	*f = Failure{Path: v.Path, Err: &Error{v.Message, v.Reason}}
	if v.Raw != nil {
		f.Path = string(v.Raw)
	}
	return nil
}
