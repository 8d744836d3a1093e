package moves

import (
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// State is where a move stands.
type State string

// The states.
const (
	Forward State = "forward"
	Back    State = "back"
	Paused  State = "paused"
	Refused State = "refused" // by BACKING, or for want of a key; tried again after a while
)

// View is one move, to be shown. The JSON is that of `moves list`.
type View struct {
	ID        string `json:"id"`
	Path      string `json:"path"`
	Raw       []byte `json:"raw,omitempty"` // of a path that is not UTF-8
	Kind      string `json:"kind"`          // empty: not known yet
	State     State  `json:"state"`
	Why       string `json:"why,omitempty"` // paused or refused
	Size      int64  `json:"size"`
	Watermark int64  `json:"watermark"` // bytes; -1: all is in the old file
}

// Status is the moves of a datastore at a glance.
type Status struct {
	Count   int    `json:"count"`   // under way, paused ones included
	Paused  int    `json:"paused"`  // of Count
	Refused []View `json:"refused"` // of Count, at most mostShown
}

// mostShown bounds the refused moves in a Status.
const mostShown = 16

// NewStatus sums up a list; nil for an empty one.
func NewStatus(list []View) *Status {
	if len(list) == 0 {
		return nil
	}
	s := &Status{Count: len(list), Refused: []View{}}
	for i := range list {
		switch {
		case list[i].State == Paused:
			s.Paused++
		case list[i].State == Refused && len(s.Refused) < mostShown:
			s.Refused = append(s.Refused, list[i])
		}
	}
	return s
}

// names reports whether w, an id or a path below BACKING, names the move: its file, or a directory
// above it.
func (v *View) names(w string) bool {
	if w == v.ID {
		return true
	}
	w = path.Clean(w)
	return w == "." || w == v.Path || strings.HasPrefix(v.Path, w+"/")
}

// shown gives v with its path in both forms.
func (v View) shown() View {
	if !utf8.ValidString(v.Path) {
		v.Raw = []byte(v.Path)
	}
	return v
}

// Named are the moves of list that which names, or all.
func Named(list []View, which []string) []View {
	named := []View{}
	for _, v := range list {
		if len(which) == 0 || slices.ContainsFunc(which, v.names) {
			named = append(named, v)
		}
	}
	return named
}

// Missing are those of which that name no move of list.
func Missing(list []View, which []string) (none []string) {
	for _, w := range which {
		if !slices.ContainsFunc(list, func(v View) bool { return v.names(w) }) {
			none = append(none, w)
		}
	}
	return none
}
