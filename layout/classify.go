package layout

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Class is the fate of a file's content, decided by the file's name.
type Class uint8

// The zero Class is Encrypt: a forgotten decision protects.
const (
	Encrypt Class = iota
	Clear
	Inspect // encrypted until the content proves to be a VMDK descriptor
)

// String is "encrypt", "clear" or "inspect".
func (c Class) String() string {
	switch c {
	case Encrypt:
		return "encrypt"
	case Clear:
		return "clear"
	case Inspect:
		return "inspect"
	default:
		return fmt.Sprintf("class %d", uint8(c))
	}
}

// Verdict is the answer for one name, with the deciding rule.
type Verdict struct {
	Class   Class
	Rule    int    // 1…9 of docs/on-disk-format.md; 0: the datastore's settings
	Pattern string // the matching pattern, empty for rule 9
	About   string // the rule in words: "disks", "logs", …
	Base    string // the name as matched: lower case, decoration removed
	Policy  string // the policy that made the class another than the rules; empty: none
}

// MayTurnClear reports whether a file encrypted by this verdict may become cleartext under
// another name (design §4, renames): only rule 9 and Inspect allow that.
func (v Verdict) MayTurnClear() bool {
	return v.Class == Inspect || v.Class == Encrypt && v.Rule == unknown.Rule
}

// Rules classify names: the settings' globs first, then the built-in table. The
// nil *Rules is the built-in table alone. Immutable.
type Rules struct {
	encrypt []string // lower case
	clear   []string
}

// NewRules checks the settings' globs: the patterns of path.Match, where `*` is any
// run of bytes, in UTF-8 without control characters. Case does not matter, in ASCII.
func NewRules(encrypt, clear []string) (*Rules, error) {
	r := &Rules{encrypt: slices.Clone(encrypt), clear: slices.Clone(clear)}
	for _, list := range [][]string{r.encrypt, r.clear} {
		for i, g := range list {
			list[i] = lower(g)
			if err := validGlob(list[i]); err != nil {
				return nil, fmt.Errorf("glob %q: %w", g, err)
			}
		}
	}
	return r, nil
}

func validGlob(g string) error {
	switch {
	case g == "":
		return errors.New("empty")
	case strings.Contains(g, "/"):
		return errors.New("has a slash, but only the last path element is matched")
	case !utf8.ValidString(g):
		return errors.New("not UTF-8")
	case strings.ContainsFunc(g, unicode.IsControl):
		return errors.New("has a control character")
	}
	_, err := path.Match(g, "")
	return err
}

// Classify decides for name under the built-in table alone.
func Classify(name string) Verdict { return (*Rules)(nil).Classify(name) }

// Classify decides by the last element of name. An encrypt glob of the settings matches the name
// with decoration too, so `encrypt = ["*.bak"]` holds. Where an encrypt glob and a clear glob
// match, the encrypt glob wins.
func (r *Rules) Classify(name string) Verdict {
	base := baseName(name)
	v, ok := r.settings(lower(element(name)), base)
	if !ok {
		v = classifyBuiltin(base)
		v = r.rotated(v, base)
	}
	v.Base = base
	return v
}

// rotated returns v, the verdict for base, with one exception: base is a rotated log and the
// settings encrypt the log itself. Older versions of these rules encrypted such a name as an
// unknown one.
func (r *Rules) rotated(v Verdict, base string) Verdict {
	if !strings.HasPrefix(v.Pattern, rotatedLog) {
		return v
	}
	log := base[:strings.LastIndex(base, ".log")+len(".log")]
	if s, ok := r.settings(log, log); ok && s.Class == Encrypt {
		return s
	}
	return v
}

// settings matches the globs of the settings.
func (r *Rules) settings(whole, base string) (Verdict, bool) {
	if r == nil {
		return Verdict{}, false
	}
	for _, g := range r.encrypt {
		if glob(g, base) || glob(g, whole) {
			return Verdict{Class: Encrypt, Pattern: g, About: "settings"}, true
		}
	}
	for _, g := range r.clear {
		if glob(g, base) {
			return Verdict{Class: Clear, Pattern: g, About: "settings"}, true
		}
	}
	return Verdict{}, false
}

func classifyBuiltin(base string) Verdict {
	plain, packing := base, ""
	for _, c := range compressors {
		if s, ok := strings.CutSuffix(base, c); ok {
			plain, packing = s, c
		}
	}
	for i := range builtin {
		r := &builtin[i]
		if p, ok := r.match(base); ok {
			return Verdict{Class: r.class, Rule: r.number, Pattern: p, About: r.about}
		}
		if !r.packed || packing == "" {
			continue
		}
		if p, ok := r.match(plain); ok {
			return Verdict{Class: r.class, Rule: r.number, Pattern: p + packing, About: r.about}
		}
	}
	return unknown
}

// glob reports whether pattern, known to be well-formed, matches name, a path element. The time
// is bounded by the product of both lengths.
func glob(pattern, name string) bool {
	// Most patterns are an ending, and few names contain the literal text that follows the star
	// in the others. path.Match would try every pattern at every place of the name.
	if rest, ok := strings.CutPrefix(pattern, "*"); ok {
		n := strings.IndexAny(rest, `*?[\`)
		if n < 0 {
			return strings.HasSuffix(name, rest)
		}
		if !strings.Contains(name, rest[:n]) {
			return false
		}
	}
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}
