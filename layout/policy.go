package layout

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// MaxMoves bounds the moves under way in a datastore.
	MaxMoves = 256
	// MaxPolicies bounds the policies of a datastore beside the built-in ones.
	MaxPolicies = 256
	// MaxPolicyName bounds a policy's name in characters.
	MaxPolicyName = 64
	// maxPlacePath bounds a place's path in bytes: PATH_MAX of Linux.
	maxPlacePath = 4096
)

// Policy is what new files of a place get.
type Policy struct {
	Name    string // 1…MaxPolicyName characters
	Encrypt bool
	// Provider has the KEK; empty: the datastore's.
	Provider string
	// KEK is KEKOfDatastore (or empty), KEKOfPlace, or the identifier of a key of Provider.
	KEK string
}

// What a policy's KEK may be beside a key's identifier.
const (
	KEKOfDatastore = "datastore"
	KEKOfPlace     = "vm" // each place its own
)

// The policies of every datastore.
var builtinPolicies = [...]Policy{
	{Name: "encrypt", Encrypt: true},
	{Name: "clear"},
}

// Place is a directory of BACKING with a policy.
type Place struct {
	Path    string // below BACKING, clean, without a slash at the ends; "." is BACKING
	ID      FileID
	Policy  string
	KEK     string   // with a policy of KEKOfPlace: this place's
	Encrypt []string // globs for names in the directory itself; they go before Clear
	Clear   []string
	Adopt   bool // cleartext found below is served
}

// Policy returns the policy of this name, built-in or the datastore's.
func (s *Settings) Policy(name string) (Policy, bool) {
	for _, list := range [][]Policy{builtinPolicies[:], s.Policies} {
		if i := slices.IndexFunc(list, func(p Policy) bool { return p.Name == name }); i >= 0 {
			return list[i], true
		}
	}
	return Policy{}, false
}

// append appends the table of p, and an empty line.
func (p *Policy) append(b []byte) []byte {
	b = fmt.Appendf(b, "[[policy]]\nname = %s\nencrypt = %v\n", quote(p.Name), p.Encrypt)
	b = appendText(b, "provider", p.Provider)
	b = appendText(b, "kek", p.KEK)
	return append(b, '\n')
}

// append appends the table of p, and an empty line.
func (p *Place) append(b []byte) []byte {
	b = fmt.Appendf(b, "[[place]]\npath = %s\nid = %s\npolicy = %s\n", quote(p.Path), quote(p.ID.String()), quote(p.Policy))
	b = appendText(b, "kek", p.KEK)
	b = appendList(b, "encrypt", p.Encrypt)
	b = appendList(b, "clear", p.Clear)
	if p.Adopt {
		b = append(b, "adopt = true\n"...)
	}
	return append(b, '\n')
}

func appendText(b []byte, key, text string) []byte {
	if text == "" {
		return b
	}
	return fmt.Appendf(b, "%s = %s\n", key, quote(text))
}

func readPolicy(t *document) Policy {
	t.only("name", "encrypt", "provider", "kek")
	return Policy{
		Name:     t.str("name"),
		Encrypt:  t.boolean("encrypt"),
		Provider: t.optional("provider"),
		KEK:      t.optional("kek"),
	}
}

func readPlace(t *document) Place {
	t.only("path", "id", "policy", "kek", "encrypt", "clear", "adopt")
	p := Place{
		Path:    t.str("path"),
		ID:      t.id("id"),
		Policy:  t.str("policy"),
		KEK:     t.optional("kek"),
		Encrypt: t.list("encrypt"),
		Clear:   t.list("clear"),
	}
	if t.has("adopt") {
		p.Adopt = t.boolean("adopt")
	}
	return p
}

func checkMoves(ids []FileID) error {
	if len(ids) > MaxMoves {
		return fmt.Errorf("%d moves, over %d", len(ids), MaxMoves)
	}
	for i, id := range ids {
		if (id == FileID{}) || slices.Contains(ids[:i], id) {
			return fmt.Errorf("%v: zero, or twice", id)
		}
	}
	return nil
}

func (s *Settings) checkPolicies() error {
	if len(s.Policies) > MaxPolicies {
		return fmt.Errorf("%d policies, over %d", len(s.Policies), MaxPolicies)
	}
	seen := map[string]bool{}
	for _, p := range builtinPolicies {
		seen[p.Name] = true
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		err := p.check()
		if err == nil && seen[p.Name] {
			err = errors.New("the name is taken")
		}
		if err != nil {
			return fmt.Errorf("%q: %w", p.Name, err)
		}
		seen[p.Name] = true
	}
	return nil
}

func (p *Policy) check() error {
	if n := utf8.RuneCountInString(p.Name); n > MaxPolicyName {
		return fmt.Errorf("name: %d characters, over %d", n, MaxPolicyName)
	}
	if err := validName(p.Name, utf8.UTFMax*MaxPolicyName); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if !p.Encrypt && (p.Provider != "" || p.KEK != "") {
		return errors.New("has a key, and does not encrypt")
	}
	ofDatastore := p.KEK == "" || p.KEK == KEKOfDatastore
	if p.Provider != "" && ofDatastore {
		return errors.New("names a provider, and takes the datastore's KEK")
	}
	return errors.Join(optionalName("provider", p.Provider, MaxProvider), optionalName("kek", p.KEK, MaxKeyID))
}

// optionalName is nil for an empty or valid name.
func optionalName(what, name string, most int) error {
	if name == "" {
		return nil
	}
	if err := validName(name, most); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (s *Settings) checkPlaces() error {
	seen := map[string]bool{}
	ids := map[FileID]int{}
	for i := range s.Places {
		p := &s.Places[i]
		err := s.checkPlace(p)
		ids[p.ID]++
		switch {
		case err != nil:
		case seen[p.Path]:
			err = errors.New("the path is there twice")
		case ids[p.ID] > 2: // a rename seals both paths
			err = fmt.Errorf("id %v has more than two paths", p.ID)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", p.Path, err)
		}
		seen[p.Path] = true
	}
	return nil
}

func (s *Settings) checkPlace(p *Place) error {
	if err := validPlacePath(p.Path); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	if (p.ID == FileID{}) {
		return errors.New("id: zero")
	}
	policy, ok := s.Policy(p.Policy)
	switch {
	case !ok:
		return fmt.Errorf("policy: there is none of the name %q", p.Policy)
	case policy.KEK == KEKOfPlace && p.KEK == "":
		return fmt.Errorf("kek: missing, and policy %q gives each place its own", p.Policy)
	case policy.KEK != KEKOfPlace && p.KEK != "":
		return fmt.Errorf("kek: policy %q gives no place its own", p.Policy)
	}
	if err := optionalName("kek", p.KEK, MaxKeyID); err != nil {
		return err
	}
	_, err := NewRules(p.Encrypt, p.Clear)
	return err
}

// validPlacePath accepts what path.Clean leaves alone, below BACKING and not below the reserved
// directory.
func validPlacePath(p string) error {
	switch {
	case p == ".":
		return nil
	case p == "" || p != path.Clean(p) || strings.HasPrefix(p, "/") || p == ".." || strings.HasPrefix(p, "../"):
		return errors.New("no clean path below BACKING")
	case len(p) > maxPlacePath:
		return fmt.Errorf("%d bytes, over %d", len(p), maxPlacePath)
	case !utf8.ValidString(p):
		return errors.New("not UTF-8")
	case strings.ContainsRune(p, 0):
		return errors.New("has a NUL")
	case slices.ContainsFunc(strings.Split(p, "/"), Reserved):
		return errors.New("a name in it is reserved")
	}
	return nil
}
