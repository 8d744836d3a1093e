package main

import (
	"context"
	"fmt"
	"strings"

	"vmcryptfs/layout"
	"vmcryptfs/words"
)

// verdict is the answer of classify and info about a name.
type verdict struct {
	Name    string `json:"name"`
	Class   string `json:"class"`   // "encrypt", "clear" or "inspect"
	Rule    int    `json:"rule"`    // 1…9; 0: the datastore's settings
	Pattern string `json:"pattern"` // the matching pattern; empty for rule 9
	About   string `json:"about"`   // the rule in words
	Base    string `json:"base"`    // the name as matched
	// Place governs the name; nil: none does, or the datastore is not known.
	Place *placeInfo `json:"place,omitempty"`
}

// spelled is the verdict v of a name in words.
func spelled(name string, v layout.Verdict) verdict {
	return verdict{Name: name, Class: v.Class.String(), Rule: v.Rule, Pattern: v.Pattern, About: v.About, Base: v.Base}
}

// why is the reason in words.
func (v verdict) why() string {
	rule := fmt.Sprintf("rule %d, %s", v.Rule, v.About)
	switch {
	case v.Rule == 0 && strings.HasPrefix(v.About, "place "):
		rule = "the " + words.Printable(v.About)
	case v.Rule == 0:
		rule = "the datastore's settings"
	}
	switch {
	case layout.Reserved(v.Name):
		return "reserved for vmcryptfs: neither seen nor made through a mount"
	case v.Pattern == "":
		return rule + ": no other rule matches " + words.Printable(v.Base)
	}
	return fmt.Sprintf("%s: %s matches %s", rule, words.Printable(v.Base), words.Printable(v.Pattern))
}

// classify shows the deciding rule of each name, and the place that governs it.
func (p *program) classify(_ context.Context, args []string) error {
	f := p.flags("classify")
	backing := f.String("settings", "", "apply the rules of the datastore in this BACKING, too; a NAME with directories lies below it")
	asJSON := f.Bool("json", false, "print JSON")
	names, err := p.parse(f, args, "NAME… [--settings BACKING] [--json]", 1, -1)
	if err != nil {
		return err
	}
	root := ""
	if *backing != "" {
		if root, err = datastoreAt(*backing); err != nil {
			return err
		}
	}
	var all []verdict
	for _, name := range names {
		v, err := classified(root, name)
		if err != nil {
			return err
		}
		all = append(all, v)
	}
	if *asJSON {
		return p.printJSON(all)
	}
	for _, v := range all {
		fmt.Fprintf(p.stdout, "%-8s %s (%s%s)\n", v.Class, words.Printable(v.Name), v.why(), v.Place.also())
	}
	return nil
}

// classified is the verdict on a name. With a root, a BACKING, the name lies below root; without one,
// a name with a directory is a path, and goes by the datastore to which it leads, if any.
func classified(root, name string) (verdict, error) {
	in, rel, err := nameInDatastore(root, name)
	if err != nil {
		return verdict{}, err
	}
	if in == "" {
		return spelled(name, layout.Classify(name)), nil
	}
	j, err := judgedIn(in, rel)
	if err != nil {
		return verdict{}, err
	}
	v := spelled(name, j.Verdict)
	v.Place = governing(&j)
	return v, nil
}
