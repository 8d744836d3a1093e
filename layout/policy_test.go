package layout

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func placeID(n byte) FileID { return FileID{0: n, 6: 0x40, 8: 0x80} }

func settingsWithPlaces() Settings {
	s := exampleSettings()
	s.Moves = []FileID{placeID(1), placeID(2)}
	s.Policies = []Policy{
		{Name: "gold", Encrypt: true, Provider: "corp", KEK: KEKOfPlace},
		{Name: "own \"key\"", Encrypt: true, KEK: "77"},
		{Name: "plain", Encrypt: true, KEK: KEKOfDatastore},
		{Name: "scratch"},
	}
	s.Places = []Place{
		{Path: ".", ID: placeID(3), Policy: "encrypt", Adopt: true},
		{Path: "web 01/ä", ID: placeID(4), Policy: "gold", KEK: "86", Encrypt: []string{"*.log"}, Clear: []string{"*_2-flat.vmdk", "x"}},
		{Path: "build", ID: placeID(5), Policy: "scratch"},
		{Path: "build2", ID: placeID(5), Policy: "scratch"},
		{Path: "old", ID: placeID(6), Policy: "clear"},
	}
	return s
}

func TestPoliciesRoundTrip(t *testing.T) {
	want := settingsWithPlaces()
	if err := want.Check(); err != nil {
		t.Fatal(err)
	}
	got, err := ParseBody(want.Encode())
	if err != nil {
		t.Fatalf("%s: %v", want.Encode(), err)
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
}

func TestPolicyByName(t *testing.T) {
	s := settingsWithPlaces()
	for name, want := range map[string]Policy{"encrypt": {Name: "encrypt", Encrypt: true}, "clear": {Name: "clear"}, "scratch": {Name: "scratch"}} {
		if got, ok := s.Policy(name); !ok || got != want {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
	if _, ok := s.Policy("Gold"); ok {
		t.Error("a name in another case")
	}
}

// TestPoliciesRefused edits the text: Check and ParseBody both refuse, with the line of the table.
func TestPoliciesRefused(t *testing.T) {
	good := settingsWithPlaces()
	text := string(good.Encode())
	long := strings.Repeat("x", 65)
	many := make([]FileID, MaxMoves+1)
	for i := range many {
		many[i] = FileID{byte(i), byte(i >> 8), 1}
	}
	for _, c := range []struct {
		from, to, at, says string
	}{
		{`moves = ["01`, `moves = ["0g`, "moves", "moves: not a UUID"},
		{placeID(2).String(), placeID(1).String(), "moves", "twice"},
		{placeID(2).String(), FileID{}.String(), "moves", "zero"},
		{`moves = [`, `moves = ["` + strings.Join(texts(many), `", "`) + `", `, "moves", "over 256"},
		{`name = "gold"`, `name = ""`, "[[policy]]", "empty"},
		{`name = "gold"`, `name = "clear"`, "[[policy]]", "taken"},
		{`name = "gold"`, `name = "scratch"`, "[[policy]]", "taken"},
		{`name = "gold"`, `name = "` + long + `"`, "[[policy]]", "65 characters"},
		{"name = \"gold\"\n", "", "[[policy]]", `policy: key "name" is missing`},
		{"encrypt = true\nprovider", "provider", "[[policy]]", `key "encrypt" is missing`},
		{"encrypt = true\nprovider", "encrypt = 1\nprovider", "[[policy]]", "not true or false"},
		{"encrypt = true\nprovider", "encrypt = false\nprovider", "[[policy]]", "does not encrypt"},
		{`kek = "vm"`, `kek = "datastore"`, "[[policy]]", "takes the datastore's KEK"},
		{`kek = "vm"`, `kek = ""`, "[[policy]]", "kek: empty"},
		{`kek = "vm"`, `key = "vm"`, "[[policy]]", `policy: unknown key "key"`},
		{`path = "."`, `path = "/"`, "[[place]]", "no clean path"},
		{`path = "."`, `path = ""`, "[[place]]", "no clean path"},
		{`path = "."`, `path = "a/"`, "[[place]]", "no clean path"},
		{`path = "."`, `path = "../x"`, "[[place]]", "no clean path"},
		{`path = "."`, `path = "a/../b"`, "[[place]]", "no clean path"},
		{`path = "."`, `path = ".vmcryptfs/x"`, "[[place]]", "reserved"},
		{`path = "."`, `path = "a\u0000"`, "[[place]]", "NUL"},
		{`path = "."`, `path = "` + strings.Repeat("x", 4097) + `"`, "[[place]]", "4097 bytes"},
		{`path = "."`, `path = "build"`, "[[place]]", "twice"},
		{placeID(3).String(), placeID(5).String(), "[[place]]", "more than two paths"},
		{placeID(3).String(), FileID{}.String(), "[[place]]", "id: zero"},
		{`policy = "encrypt"`, `policy = "none"`, "[[place]]", "there is none"},
		{`policy = "encrypt"`, `policy = "gold"`, "[[place]]", "kek: missing"},
		{"policy = \"encrypt\"\n", "policy = \"encrypt\"\nkek = \"5\"\n", "[[place]]", "gives no place its own"},
		{"adopt = true", "adopt = 'yes'", "[[place]]", "not true or false"},
		{`["*.log"]`, `["a/b"]`, "[[place]]", "has a slash"},
		{`["*.log"]`, `[5]`, "[[place]]", "not an array of strings"},
		{"[[place]]\npath = \".\"", "[place]\npath = \".\"", "[[place]]", "place"},
	} {
		if !strings.Contains(text, c.from) {
			t.Fatalf("no %q in the text", c.from)
		}
		edited := strings.Replace(text, c.from, c.to, 1)
		_, err := ParseBody([]byte(edited))
		var e *SettingsError
		if !errors.As(err, &e) || !strings.Contains(e.Reason, c.says) {
			t.Errorf("%q for %q: %v, want %q", c.to, c.from, err, c.says)
			continue
		}
		if line := strings.Split(edited, "\n")[max(0, e.Line-1)]; e.Line == 0 || !strings.HasPrefix(line, c.at) {
			t.Errorf("%q: line %d is %q, want one that begins with %q", c.to, e.Line, line, c.at)
		}
	}
}

// TestPlacesAreMany: a thousand machines fit, and half a million empty tables do no harm.
func TestPlacesAreMany(t *testing.T) {
	s := exampleSettings()
	for i := range 2000 {
		s.Places = append(s.Places, Place{Path: "machines/" + placeID(byte(i)).String() + strings.Repeat("x", 1+i/256), ID: FileID{byte(i), byte(i >> 8), 1}, Policy: "encrypt"})
	}
	if got, err := ParseBody(s.Encode()); err != nil || len(got.Places) != len(s.Places) {
		t.Errorf("%d bytes: %v", len(s.Encode()), err)
	}
	s.Policies = make([]Policy, MaxPolicies+1)
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "over 256") {
		t.Errorf("%d policies: %v", len(s.Policies), err)
	}
	if _, err := ParseBody([]byte(exampleText + strings.Repeat("[[place]]\n", 100_000))); err == nil {
		t.Error("empty tables were accepted")
	}
}
