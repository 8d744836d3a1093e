package ability

import (
	"errors"
	"fmt"
	"strings"
)

// Answer is whether a file system can do something.
type Answer string

const (
	Yes     Answer = "yes"
	No      Answer = "no"
	Untried Answer = "not tried"
)

// Finding is what is known of one ability.
type Finding struct {
	Answer Answer `json:"answer"`
	Detail string `json:"detail,omitempty"` // why not; of Direct the alignment
}

// Report is what a file system can do. It is not changed after Probe.
type Report struct {
	FileSystem string              `json:"type"`      // its type as the kernel names it
	Abilities  map[Ability]Finding `json:"abilities"` // every one of All
}

// ErrUnfit: the file system lacks what a datastore cannot do without.
var ErrUnfit = errors.New("cannot hold a datastore")

// Lacks tells if it is known that the file system cannot do it.
func (r *Report) Lacks(a Ability) bool { return r.Abilities[a].Answer == No }

// Err is nil, or says what is missing that is required: an ErrUnfit.
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
