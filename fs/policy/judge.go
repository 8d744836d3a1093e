package policy

import (
	"path"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/wire"
	"vmcryptfs/layout"
)

// Judgement is what a name gets by the settings as they are read, proven or not.
type Judgement struct {
	layout.Verdict
	// Place governs the name: the place that its directory is, else the nearest above that
	// encrypts; nil: none.
	Place *layout.Area
	Lacks string // why Place does not hold; empty: it does
	// Adopts: cleartext is served in the directory under names that encrypt.
	Adopts bool
	KEK    wire.KeyName // of a new encrypted file
}

// Judge judges the name at a clean path below BACKING. The directory need not exist.
func Judge(store *datastore.Store, at string) (Judgement, error) {
	s := store.Settings()
	places, err := layout.NewPlaces(s)
	if err != nil {
		return Judgement{}, err
	}
	c := Config{Store: store}
	dir := path.Dir(at)
	here, over := places.At(dir), places.Over(dir)
	j := Judgement{Place: here, Adopts: Adopts(places, dir), KEK: wire.KeyName{Provider: s.Provider, Identifier: s.KEK}}
	if here == nil {
		j.Place = over
	}
	if j.Place != nil {
		j.Lacks = c.lacks(j.Place)
	}
	if _, id, own := over.OwnKEK(); own {
		j.KEK = wire.KeyName{Provider: providerOf(s, over.Policy), Identifier: id}
	}
	j.Verdict = places.Classify(path.Base(at), here, here.Tagged() && j.Lacks == "")
	return j, nil
}

// Adopts reports whether cleartext in the directory at a path is served under names that encrypt: the
// directory is a place that adopts, or the encrypting place over it adopts.
func Adopts(places *layout.Places, dir string) bool {
	here, over := places.At(dir), places.Over(dir)
	return here != nil && here.Place.Adopt || over != nil && over.Place.Adopt
}

// ClassifyIn is the verdict on a name in the directory at a path, which is open as fd.
func ClassifyIn(places *layout.Places, fd int, dir, name string) (layout.Verdict, error) {
	a := places.At(dir)
	tagged := false
	if a.Tagged() {
		id, err := ReadTag(fd)
		if err != nil {
			return layout.Verdict{}, err
		}
		tagged = id == a.Place.ID
	}
	return places.Classify(name, a, tagged), nil
}

// Lack is a place that does not hold.
type Lack struct {
	Path   string `json:"path"`
	Policy string `json:"policy"`
	Why    string `json:"why"`
}

// Lacking are the places of store that do not hold, at most limit of them, and whether there are
// more. The settings are the store's as they are, proven or not.
func Lacking(store *datastore.Store, limit int) (list []Lack, more bool, err error) {
	s := store.Settings()
	if len(s.Places) == 0 {
		return nil, false, nil
	}
	places, err := layout.NewPlaces(s)
	if err != nil {
		return nil, false, err
	}
	c := Config{Store: store}
	for i := range s.Places {
		a := places.At(s.Places[i].Path)
		why := c.lacks(a)
		switch {
		case why == "":
		case len(list) == limit:
			return list, true, nil
		default:
			list = append(list, Lack{Path: a.Place.Path, Policy: a.Policy.Name, Why: why})
		}
	}
	return list, false, nil
}
