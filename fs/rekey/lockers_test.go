package rekey

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// testKeys are KEKs by a short name: a letter for the provider, and the identifier.
type testKeys map[string]*keys.KEK

func newTestKeys(t *testing.T, names ...string) testKeys {
	ks := testKeys{}
	for _, n := range names {
		// "A1'" is another key under the identifier of "A1".
		k, err := keys.NewKEK(n[:1], strings.TrimSuffix(n, "'"), material(n))
		must(t, err)
		t.Cleanup(k.Wipe)
		ks[n] = k
	}
	return ks
}

// header has lockers as the words say: a key's name, "-" for none, "?" for an unknown wrap.
func (ks testKeys) header(t *testing.T, words string) *layout.Header {
	h := &layout.Header{Generation: 1, FileID: layout.FileID{1}}
	for i, w := range strings.Fields(words) {
		switch k := ks[w]; {
		case w == "-":
		case w == "?":
			h.Lockers[i].Wrap = 7
		default:
			h.Lockers[i] = layout.Locker{Wrap: layout.WrapKMIP, Provider: k.Provider, KeyID: k.ID, KCV: k.CheckValue(), Nonce: [12]byte{byte(i)}}
		}
	}
	return h
}

// words is the reverse; a locker to be wrapped is "*".
func (ks testKeys) words(c *edit) string {
	var list []string
	for i, l := range c.header.Lockers {
		word := "-"
		switch {
		case c.wrap && i == c.locker:
			word = "*"
		case l.Wrap == layout.WrapKMIP:
			for name, k := range ks {
				if k.CheckValue() == l.KCV {
					word = name
				}
			}
		case l.Wrap != 0:
			word = "?"
		}
		list = append(list, word)
	}
	return strings.TrimRight(strings.Join(list, " "), " -")
}

func TestPlan(t *testing.T) {
	t.Parallel()
	ks := newTestKeys(t, "A1", "A1'", "A2", "B1", "B2")
	for _, c := range []struct {
		target, drop string
		before       string
		want         string // "full" for ErrLockersFull
		locker       int
	}{
		{"A2", "", "A1", "*", 0},
		{"A2", "", "A2", "A2", 0},
		{"A2", "", "B1 A1", "B1 *", 1},
		{"A2", "", "B1", "B1 *", 1},
		{"A2", "", "- B1", "* B1", 0},
		{"A2", "", "? A1 B1", "? * B1", 1},
		{"A2", "", "A1 B1 A1", "* B1", 0},
		{"A2", "", "- A1 A1", "- *", 1},
		{"A2", "", "A1 A2", "- A2", 1},
		{"A2", "", "A2 A1", "A2", 0},
		{"A2", "", "A2 A2", "A2", 0},
		{"A1", "", "A1'", "*", 0}, // the identifier alone is not the key
		{"A2", "", "B1 B2 ? ? ? ? ? ?", "full", 0},
		{"A2", "", "B1 B2 ? ? ? ? ? A1", "B1 B2 ? ? ? ? ? *", 7},
		{"A2", "B", "B1 B2 ? ? ? ? ? ?", "* - ? ? ? ? ? ?", 0},
		{"A2", "B", "A1 B1", "*", 0},
		{"A2", "B", "A2 B1", "A2", 0},
		{"", "B", "A1 B1 B2 ?", "A1 - - ?", -1},
		{"", "B", "A1", "A1", -1},
		{"", "B", "B1", "", -1},
		{"A2", "", "", "*", 0},
	} {
		t.Run(fmt.Sprintf("%s %s over %s", c.target, c.drop, c.before), func(t *testing.T) {
			h := ks.header(t, c.before)
			before := *h
			got, err := goal{ks[c.target], c.drop}.next(h)
			if c.want == "full" {
				if !errors.Is(err, ErrLockersFull) {
					t.Errorf("error %v", err)
				}
				return
			}
			must(t, err)
			if words := ks.words(&got); words != c.want || got.locker != c.locker {
				t.Errorf("lockers %q, target in %d; want %q, %d", words, got.locker, c.want, c.locker)
			}
			if got.nothing() != (c.before == c.want) {
				t.Errorf("nothing to do: %v", got.nothing())
			}
			if diff := cmp.Diff(before, *h, cmpopts.IgnoreUnexported(layout.Locker{})); diff != "" {
				t.Errorf("the header itself was changed: %s", diff)
			}
		})
	}
}
