package policy

import (
	"context"
	"path"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// mostStrays bounds the tags of a Listing: whoever may write BACKING can make as many as he likes.
const mostStrays = 1000

// Stray is a tag in a directory that is not the place of the tag: the directory was renamed, restored
// or copied in BACKING.
type Stray struct {
	Path  string `json:"path"` // of the directory
	ID    string `json:"id"`
	Place string `json:"place,omitempty"` // where the place of that id is; empty: there is none
}

// strays looks through BACKING for tags in wrong directories. complete is false where not all could
// be read, or in time.
func (c *Config) strays(ctx context.Context, s *layout.Settings) (found []Stray, complete bool) {
	paths := make(map[layout.FileID]string, len(s.Places))
	right := make(map[string]layout.FileID, len(s.Places))
	for _, p := range s.Places {
		paths[p.ID], right[p.Path] = p.Path, p.ID
	}
	found, complete = []Stray{}, true
	w := backing.Walk{Root: c.Store.Fd()}
	w.Broken = func(string, error) error { complete = false; return nil }
	w.Visit = func(dir int, at string, e *backing.Entry) error {
		if string(e.Name) != layout.PlaceTag || e.Kind != unix.S_IFREG {
			return nil
		}
		id, err := ReadTag(dir)
		in := path.Dir(at)
		switch {
		case err != nil:
			complete = false
			return nil
		case id == layout.FileID{}, right[in] == id:
			return nil
		case len(found) == mostStrays:
			return errFound
		}
		found = append(found, Stray{Path: in, ID: id.String(), Place: paths[id]})
		return nil
	}
	err := w.All(ctx)
	return found, complete && err == nil
}
