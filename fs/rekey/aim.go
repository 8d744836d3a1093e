package rekey

import (
	"cmp"
	"path"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// aim says which KEK each file shall have: that of its place, or the same for all.
type aim struct {
	base     keys.Ref // of files whose place has no KEK of its own
	byPlace  bool     // KEKs that places or policies have of their own go before base
	only     string   // of them, those at this provider; empty: all
	provider string   // the datastore's
	places   *layout.Places
}

// renew has the aim go by the places of s: a pass goes by the settings of its beginning.
func (a *aim) renew(s *layout.Settings) {
	if !a.byPlace {
		return
	}
	places, err := layout.NewPlaces(s)
	if err == nil { // else the places of before: settings are checked when they are read
		a.places, a.provider = places, s.Provider
	}
}

// of is the KEK of the file or directory at a path below BACKING. own: it is not the datastore's.
func (a *aim) of(rel string) (ref keys.Ref, own bool) {
	provider, id, own := a.places.Over(rel).OwnKEK()
	provider = cmp.Or(provider, a.provider)
	if !own || a.only != "" && provider != a.only {
		return a.base, false
	}
	return keys.Ref{Provider: provider, ID: id}, true
}

// ofFile is of for a file, whose directory decides.
func (a *aim) ofFile(rel string) (ref keys.Ref, own bool) { return a.of(path.Dir(rel)) }

// takeAim decides what each file of the request gets. target is the request's key, and becomes the
// datastore's current KEK if becomes. The result is the KEK that is held for the whole run: that of all
// paths where it is one.
func (r *run) takeAim(request *Request, target keys.Ref, becomes bool) keys.Ref {
	s := r.config.Store.Settings()
	chosen := request.New || request.To != ""
	r.aim = aim{base: target, byPlace: request.whole() || !chosen}
	current := target.Provider == s.Provider && target.ID == s.KEK
	if !current && !becomes { // a locker at one more provider
		r.aim.only = target.Provider
	}
	r.aim.renew(s)
	if !current || chosen {
		return target
	}
	held, _ := r.aim.of(request.Paths[0])
	for _, rel := range request.Paths[1:] {
		if ref, _ := r.aim.of(rel); !sameKey(ref, held) {
			return target
		}
	}
	return held
}

func sameKey(a, b keys.Ref) bool { return a.Provider == b.Provider && a.ID == b.ID }
