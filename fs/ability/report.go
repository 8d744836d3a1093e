package ability

import (
	"errors"
	"fmt"
	"strings"
)

// Answer says whether a file system can do something.
type Answer string

const (
	Yes     Answer = "yes"
	No      Answer = "no"
	Untried Answer = "not tried"
)

// Finding is the knowledge of one ability.
type Finding struct {
	Answer Answer `json:"answer"`
	Detail string `json:"detail,omitempty"` // why not; of Direct, the alignment in bytes
}

// Report is the abilities of a file system. A Report is immutable after Probe.
type Report struct {
	FileSystem string              `json:"type"`      // the type as the kernel names it
	Abilities  map[Ability]Finding `json:"abilities"` // every one of All
}

// ErrUnfit: the file system lacks a required ability.
var ErrUnfit = errors.New("cannot hold a datastore")

// Lacks reports whether the file system is known to lack a.
func (r *Report) Lacks(a Ability) bool { return r.Abilities[a].Answer == No }

// Err is nil, or an ErrUnfit that names the missing required abilities.
func (r *Report) Err() error {
	var missing []string
	for _, a := range required() {
		if r.Lacks(a) {
			missing = append(missing, fmt.Sprintf("no %s (%s), so %s", a, r.Abilities[a].Detail, a.Without()))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("the file system (%s) %w: %s; put BACKING on another file system, or mount this one with other options",
		r.FileSystem, ErrUnfit, strings.Join(missing, "; "))
}

// Missing are the abilities that the file system is known to lack.
func (r *Report) Missing() (list []Ability) {
	for _, a := range All() {
		if r.Lacks(a) {
			list = append(list, a)
		}
	}
	return list
}
