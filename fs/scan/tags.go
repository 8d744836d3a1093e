package scan

import (
	"path"

	"vmcryptfs/fs/policy"
	"vmcryptfs/layout"
)

// tags knows where which tag belongs.
type tags struct {
	paths map[layout.FileID]string // of a place, by its id
	right map[string]layout.FileID // by the path of the place
}

func newTags(s *layout.Settings) tags {
	t := tags{make(map[layout.FileID]string, len(s.Places)), make(map[string]layout.FileID, len(s.Places))}
	for i := range s.Places {
		p := &s.Places[i]
		t.paths[p.ID], t.right[p.Path] = p.Path, p.ID
	}
	return t
}

// misplaced says what is wrong with the tag of an id, zero for no id, in the directory at a path; empty:
// nothing.
func (t tags) misplaced(in string, id layout.FileID) string {
	home, known := t.paths[id]
	switch {
	case id == layout.FileID{}:
		return "this is no tag of a place: remove it"
	case t.right[in] == id:
		return ""
	case known:
		return "this is the tag of place " + home + ": the directory was renamed, restored or copied in BACKING (vmcryptfs policy rebind)"
	}
	return "this is the tag of place " + id.String() + ", of which the settings know nothing"
}

// tag looks at the tag at a path, in the open directory dir.
func (s *scanner) tag(dir int, at string) {
	id, err := policy.ReadTag(dir)
	if err != nil {
		s.unread(at, err)
		return
	}
	if why := s.tags.misplaced(path.Dir(at), id); why != "" {
		// A real tag holds an id and no content. What else lies there is hidden, and can be anything.
		s.add(Finding{Kind: Tag, Path: at, Why: why, Clear: id == layout.FileID{}}.by(hidden()))
	}
}
