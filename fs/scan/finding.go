package scan

import (
	"cmp"
	"slices"
	"unicode/utf8"

	"vmcryptfs/layout"
)

// mostFindings bounds the findings that are listed; the others are counted.
const mostFindings = 10_000

// Kinds of findings.
const (
	Cleartext  = "cleartext"  // in clear where policy and class say encrypted
	Adopted    = "adopted"    // the same in a place that adopts: it is served until it is moved
	Moving     = "moving"     // the half in clear of a file that is being encrypted
	Damaged    = "damaged"    // a header that is damaged
	Version    = "version"    // a header of a version that this program does not know
	Key        = "key"        // a KEK that no configured provider knows, or that opens nothing any more
	Leftover   = "leftover"   // another program's
	Temporary  = "temporary"  // of vmcryptfs: a change that was cut off
	Move       = "move"       // half of a move that is not under way, or lacks its other half
	Tag        = "tag"        // of a place that is not here
	Place      = "place"      // it does not hold, or its new files get no key
	Reserved   = "reserved"   // hidden through the mount, and none of the program's names
	Settings   = "settings"   // the settings are not those that were sealed
	Unreadable = "unreadable" // nobody can tell what is there
)

// Finding is something in BACKING that should not be there.
type Finding struct {
	Kind string `json:"kind"`
	Path string `json:"path"`          // below BACKING
	Raw  []byte `json:"raw,omitempty"` // the bytes of a path that is not UTF-8
	// Class is what the name says of the content: "encrypt", "clear" or "inspect"; empty for what is no
	// file. One of the next three decided.
	Class  string `json:"class,omitempty"`
	Rule   *int   `json:"rule,omitempty"`   // 1…9 of the built-in table; 0: globs of the settings
	Place  string `json:"place,omitempty"`  // the place whose globs or policy decided
	Policy string `json:"policy,omitempty"` // of Place
	Bytes  int64  `json:"bytes"`            // the stored length
	Why    string `json:"why"`
	Clear  bool   `json:"clear"` // it has content, which is in clear
}

// Report is what a scan found.
type Report struct {
	Backing    string `json:"backing"`
	FileSystem string `json:"filesystem"` // the type of BACKING's, in the kernel's words
	// Verified: the settings are proven. Else names were judged by the built-in rules and by the
	// settings, and the stricter one decided.
	Verified bool             `json:"verified"`
	Files    int64            `json:"files"`    // regular files that were met
	Findings []Finding        `json:"findings"` // sorted by path, at most 10,000
	Kinds    map[string]int64 `json:"kinds"`    // how many of each kind, listed or not
	Clear    int64            `json:"clear"`    // how many of all are in clear
	Bytes    int64            `json:"bytes"`    // of those in clear
	Complete bool             `json:"complete"` // all of BACKING was read, and every question answered
	Notes    []string         `json:"notes"`    // what else there is to know, a line each
}

// Total counts the findings, listed or not.
func (r *Report) Total() (n int64) {
	for _, k := range r.Kinds {
		n += k
	}
	return n
}

// add counts f, and lists f while there is room.
func (r *Report) add(f Finding) {
	r.Kinds[f.Kind]++
	if f.Clear {
		r.Clear++
		r.Bytes += f.Bytes
	}
	if len(r.Findings) == mostFindings {
		return
	}
	if !utf8.ValidString(f.Path) {
		f.Raw = []byte(f.Path)
	}
	r.Findings = append(r.Findings, f)
}

// unread adds what cannot be read.
func (r *Report) unread(at string, why error) {
	r.Complete = false
	r.add(Finding{Kind: Unreadable, Path: at, Why: why.Error()})
}

// note tells something once.
func (r *Report) note(text string) {
	if !slices.Contains(r.Notes, text) {
		r.Notes = append(r.Notes, text)
	}
}

// sort brings the findings into an order that two scans of one BACKING share.
func (r *Report) sort() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind))
	})
}

// by fills in the class of f, and what decided.
func (f Finding) by(r ruling) Finding {
	f.Class, f.Policy, f.Place = r.Class.String(), r.Policy, r.place
	if r.Policy == "" {
		rule := r.Rule
		f.Rule = &rule
	}
	if r.note != "" {
		f.Why += "; " + r.note
	}
	return f
}

// hidden is the ruling on a name that belongs to the program: nothing makes the name clear.
func hidden() ruling { return ruling{Verdict: layout.Classify(layout.ReservedPrefix)} }
