package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// roundTrip puts v into JSON and reads it as a T.
func roundTrip[T any](t *testing.T, v T) (text string, back T) {
	t.Helper()
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, &back)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(raw), back
}

// Each error with a word keeps its identity, and becomes no other error.
func TestErrorsKeepTheirReason(t *testing.T) {
	t.Parallel()
	for _, r := range append(reasons(), reason{"failed", nil}) {
		sent := errors.New("no such thing")
		if r.err != nil {
			sent = fmt.Errorf("key %q: %w", "id-1", r.err)
		}
		_, err := roundTrip(t, NewError(sent))
		if err.Reason != r.word || err.Error() != sent.Error() {
			t.Errorf("%s: got %+v", r.word, err)
		}
		for _, other := range reasons() {
			if got, want := errors.Is(err, other.err), errors.Is(sent, other.err); got != want {
				t.Errorf("%s: errors.Is(%q) = %t, want %t", r.word, other.err, got, want)
			}
		}
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		sent Failure
		text string
	}{
		{"plain", Failure{"vm/a", fmt.Errorf("unwrap: %w", keys.ErrNotFound)},
			`{"path":"vm/a","error":"unwrap: key not available: missing in KMS","reason":"missing_in_kms"}`},
		{"not UTF-8", Failure{"odd\xff", errors.New("x")}, `{"path":"odd\ufffd","raw":"b2Rk/w==","error":"x","reason":"failed"}`},
		{"markup", Failure{"<a>", errors.New("&")}, `{"path":"\u003ca\u003e","error":"\u0026","reason":"failed"}`},
	} {
		text, back := roundTrip(t, c.sent)
		if text != c.text {
			t.Errorf("%s: %s, want %s", c.name, text, c.text)
		}
		if back.Path != c.sent.Path || back.Err.Error() != c.sent.Err.Error() {
			t.Errorf("%s: read as %+v", c.name, back)
		}
	}
	var plain strings.Builder
	out := json.NewEncoder(&plain)
	out.SetEscapeHTML(false)
	if err := out.Encode(Failure{"<a>", errors.New("&")}); err != nil || !strings.Contains(plain.String(), `"<a>"`) {
		t.Errorf("an encoder that does not escape gives %s, %v", plain.String(), err)
	}
	if err := json.Unmarshal([]byte(`{"path":1}`), new(Failure)); err == nil {
		t.Error("a path that is no string is read")
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	for text, paths := range map[string]Paths{
		`["dm0x","b2Rk/w=="]`: {"vm1", "odd\xff"},
		`null`:                nil,
	} {
		got, back := roundTrip(t, paths)
		if got != text {
			t.Errorf("%q: %s, want %s", paths, got, text)
		}
		if diff := cmp.Diff(paths, back); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
	for _, bad := range []string{`["."]`, `[1]`, `"Lg=="`, `{}`} {
		if err := json.Unmarshal([]byte(bad), new(Paths)); err == nil {
			t.Errorf("%s is read as paths", bad)
		}
	}
}

func TestRest(t *testing.T) {
	t.Parallel()
	done := Rest{Complete: true}
	if err := done.Err(); err != nil {
		t.Errorf("complete: %v", err)
	}
	if text, _ := roundTrip(t, done.AsTold()); text != `{"complete":true,"failed":0,"failures":[]}` {
		t.Errorf("complete: %s", text)
	}
	var r Rest
	first := fmt.Errorf("slot: %w", layout.ErrIllFormed) // an error with no word
	r.Add("a", first)
	for range MaxFailures + 5 {
		r.Add("b", layout.ErrDamaged)
	}
	if r.Failed != MaxFailures+6 || len(r.Failures) != MaxFailures {
		t.Errorf("%d failed, %d listed", r.Failed, len(r.Failures))
	}
	want := "not done: 1006 files or directories remain, the first one for: slot: header slot is not well-formed"
	if err := r.Err(); err == nil || err.Error() != want || !errors.Is(err, layout.ErrIllFormed) || !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("here: %v", err)
	}
	told := r.AsTold()
	if err := told.Err(); err == nil || err.Error() != want || errors.Is(err, layout.ErrIllFormed) || !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("as told: %v", err)
	}
	_, read := roundTrip(t, r)
	if diff := cmp.Diff(told, read); diff != "" {
		t.Errorf("what is told is not what is read:\n%s", diff)
	}
}

// FuzzFailure: every Failure that can be read is written and read again as the same.
func FuzzFailure(f *testing.F) {
	for _, seed := range []string{`{"path":"a","error":"x","reason":"failed"}`, `{"raw":"/w==","reason":"no_key"}`, `{"raw":"","path":"a"}`, `null`, `[]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var first Failure
		if err := json.Unmarshal(text, &first); err != nil {
			return
		}
		if first.Err == nil { // null
			return
		}
		_, second := roundTrip(t, first)
		if first.Path != second.Path || first.Err.Error() != second.Err.Error() {
			t.Errorf("%+v is read as %+v", first, second)
		}
	})
}
