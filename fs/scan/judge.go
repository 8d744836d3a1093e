package scan

import (
	"fmt"
	"path"

	"vmcryptfs/fs/policy"
	"vmcryptfs/layout"
)

// judge says what becomes of files by their place. One walk uses a judge.
type judge struct {
	places *layout.Places // of the settings
	proven bool           // the settings are

	in     string // directory of the last name, of which area and tagged are; empty: none yet
	area   *layout.Area
	tagged bool
}

// ruling is a verdict on a name at its place.
type ruling struct {
	layout.Verdict
	place  string // whose globs or policy decided; empty: none
	adopts string // the place that serves cleartext under this name; empty: none
	note   string // what else is to be said of the verdict
}

// judge is the ruling on a path below BACKING, whose directory is open as dir.
func (j *judge) judge(dir int, at string) ruling {
	name := path.Base(at)
	j.enter(dir, path.Dir(at))
	r := ruling{Verdict: j.places.Classify(name, j.area, j.tagged), adopts: j.adopting()}
	if r.Policy != "" {
		r.place = j.area.Place.Path
	}
	if j.proven {
		return r
	}
	return strictest(r, layout.Classify(name))
}

// strictest is the stricter one of r, by settings that nobody has proven, and of the built-in rules'
// verdict. No place that nobody has proven adopts.
func strictest(r ruling, builtin layout.Verdict) ruling {
	adopts := ""
	if r.adopts != "" {
		adopts = fmt.Sprintf("the settings, unproven, serve it for the sake of place %s", r.adopts)
	}
	switch {
	case stricter(r.Class, builtin.Class):
		r.adopts, r.note = "", "by the settings, which are unproven"
		return r
	case r.Class != builtin.Class:
		return ruling{Verdict: builtin, note: fmt.Sprintf("the settings, unproven, say %s", r.Class)}
	}
	return ruling{Verdict: builtin, note: adopts}
}

// enter looks which place the directory dir at a path is, and whether it holds the place's tag. A tag
// that cannot be read is none: then no name is clear for the place's sake. The walk meets the tag
// itself, and tells.
func (j *judge) enter(dir int, at string) {
	if j.in == at {
		return
	}
	j.in, j.area, j.tagged = at, j.places.At(at), false
	if !j.area.Tagged() {
		return
	}
	id, err := policy.ReadTag(dir)
	j.tagged = err == nil && id == j.area.Place.ID
}

// adopting is the place that serves cleartext in the directory that was entered; empty: none.
func (j *judge) adopting() string {
	if j.places.Adopting() == 0 {
		return ""
	}
	for _, a := range []*layout.Area{j.area, j.places.Over(j.in)} {
		if a != nil && a.Place.Adopt {
			return a.Place.Path
		}
	}
	return ""
}

// stricter reports whether class a encrypts more than b.
func stricter(a, b layout.Class) bool {
	return a != b && (a == layout.Encrypt || b == layout.Clear)
}
