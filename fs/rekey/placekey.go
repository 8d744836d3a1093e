package rekey

import (
	"context"
	"fmt"
	"path"
)

// changePlaceKey gives the place that the request names another key of its own, if it asks for one.
// From then on the request is one for the KEK of each file's place.
func (r *run) changePlaceKey(ctx context.Context, request *Request) error {
	s := r.config.Store.Settings()
	place, err := request.keyed(s)
	if err != nil || place == nil {
		return err
	}
	if request.New && request.To != "" {
		return errBothKeys(request)
	}
	if err := request.checkDrop(s); err != nil {
		return err
	}
	if r.config.PlaceKey == nil {
		return fmt.Errorf("%w: the key of place %s cannot be changed here", ErrRequest, place.Path)
	}
	key, created, changed, err := r.config.PlaceKey(ctx, *place, request.To)
	if err != nil {
		return fmt.Errorf("key of place %s: %w", place.Path, err)
	}
	r.sum.KeyName, r.sum.Created, r.sum.Current, r.sum.Place = key, created, changed, place.Path
	request.New, request.To, request.Add = false, "", ""
	return nil
}

func errBothKeys(r *Request) error {
	return fmt.Errorf("%w: a new key and key %q exclude one another", ErrRequest, r.To)
}

// beside is the path of name in the directory of rel.
func beside(rel, name string) string { return path.Join(path.Dir(rel), name) }
