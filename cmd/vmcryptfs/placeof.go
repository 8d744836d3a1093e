package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/policy"
	"vmcryptfs/words"
)

// placeInfo is the place that governs a name.
type placeInfo struct {
	Path   string `json:"path"` // below BACKING
	Policy string `json:"policy"`
	Holds  bool   `json:"holds"`
	Why    string `json:"why,omitempty"` // it does not hold
	Adopt  bool   `json:"adopt"`         // cleartext is served in the name's directory
}

// governing is the place of j, nil if there is none.
func governing(j *policy.Judgement) *placeInfo {
	if j.Place == nil {
		return nil
	}
	return &placeInfo{Path: j.Place.Place.Path, Policy: j.Place.Policy.Name, Holds: j.Lacks == "", Why: j.Lacks, Adopt: j.Adopts}
}

// also is what is to be said of the place behind the reason of a class.
func (p *placeInfo) also() string {
	if p == nil {
		return ""
	}
	return "; " + p.text()
}

// text describes the place.
func (p *placeInfo) text() string {
	text := fmt.Sprintf("place %s, policy %s", words.Printable(p.Path), words.Printable(p.Policy))
	if !p.Holds {
		text += ", does not hold: " + words.Line(p.Why)
	}
	if p.Adopt {
		text += ", adopts cleartext"
	}
	return text
}

// judgedIn judges the name at a path below root, a BACKING. The seal of the settings is not checked,
// since a check needs a key.
func judgedIn(root, rel string) (policy.Judgement, error) {
	store, err := datastore.Open(root, false)
	if err != nil {
		return policy.Judgement{}, err
	}
	defer store.Close()
	return policy.Judge(store, rel)
}

// nameInDatastore gives the BACKING in which a name lies, and the path below it. Nothing need be
// there. in is empty for a name in no datastore.
func nameInDatastore(root, name string) (in, rel string, err error) {
	dir, base := filepath.Split(name)
	if root == "" && dir == "" {
		return "", "", nil
	}
	if root == "" || filepath.IsAbs(name) {
		in, rel, err = placeInDatastore(filepath.Clean(dir))
		none := errors.Is(err, datastore.ErrNone) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR)
		switch {
		case root == "" && none:
			return "", "", nil
		case err != nil:
			return "", "", err
		case root != "" && !isSame(root, in):
			return "", "", fmt.Errorf("%s does not lie in %s; name a path below that, or leave --settings out", name, root)
		}
		return in, filepath.Join(rel, base), nil
	}
	rel = filepath.Clean(name)
	if rel == ".." || strings.HasPrefix(rel, "../") {
		return "", "", fmt.Errorf("%s does not lie below %s; name a path below that", name, root)
	}
	return root, rel, nil
}
