package main

import (
	"context"
	"fmt"

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
}

// spelled is the verdict v of a name in words.
func spelled(name string, v layout.Verdict) verdict {
	return verdict{name, v.Class.String(), v.Rule, v.Pattern, v.About, v.Base}
}

// why is the reason in words.
func (v verdict) why() string {
	rule := fmt.Sprintf("rule %d, %s", v.Rule, v.About)
	if v.Rule == 0 {
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

// classify shows the deciding rule of each name.
func (p *program) classify(_ context.Context, args []string) error {
	f := p.flags("classify")
	backing := f.String("settings", "", "apply the rules of the datastore in this BACKING, too")
	asJSON := f.Bool("json", false, "print JSON")
	names, err := p.parse(f, args, "NAME… [--settings BACKING] [--json]", 1, -1)
	if err != nil {
		return err
	}
	var rules *layout.Rules
	if *backing != "" {
		at, err := datastoreAt(*backing)
		if err != nil {
			return err
		}
		if rules, err = rulesIn(at); err != nil {
			return err
		}
	}
	var all []verdict
	for _, name := range names {
		all = append(all, spelled(name, rules.Classify(name)))
	}
	if *asJSON {
		return p.printJSON(all)
	}
	for _, v := range all {
		fmt.Fprintf(p.stdout, "%-8s %s (%s)\n", v.Class, words.Printable(v.Name), v.why())
	}
	return nil
}
