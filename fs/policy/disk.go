package policy

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// setDisk says of the regular file of r whether new content of its name is encrypted: a glob of
// the place that its directory is, or becomes.
func (c *Config) setDisk(ctx context.Context, r *Request) (Result, error) {
	dir, name := path.Dir(string(r.Path)), path.Base(string(r.Path))
	if r.KEK != "" || r.Provider != "" {
		return Result{}, fmt.Errorf("%w: %s is a file, which gets the KEK of its place; name the directory %s", ErrRequest, r.Path, dir)
	}
	return c.change(ctx, func(next *layout.Settings) ([]string, error) {
		p, ok := next.Policy(r.Name)
		if !ok {
			return nil, errPolicy(r.Name)
		}
		i, err := c.placeFor(next, dir)
		if err != nil {
			return nil, err
		}
		place := &next.Places[i]
		if p.Encrypt && p.Name != "encrypt" && p.Name != place.Policy {
			return nil, fmt.Errorf("%w: %s gets the KEK of its place %s, whose policy is %q; name %q or encrypt for the file, or give the directory policy %q",
				ErrRequest, r.Path, dir, place.Policy, place.Policy, p.Name)
		}
		choose(place, name, p.Encrypt)
		return []string{dir}, chosen(next, dir, name, p.Encrypt)
	})
}

// placeFor is the index of the place that a directory is. A directory that is none becomes one that
// changes nothing: with the policy, and the KEK, of the place above that holds for it, or with
// encrypt.
func (c *Config) placeFor(next *layout.Settings, dir string) (int, error) {
	if i := findPlace(next, dir); i >= 0 {
		return i, notRenamed(next, i)
	}
	if err := c.checkTag(next, dir); err != nil {
		return 0, err
	}
	places, err := layout.NewPlaces(next)
	if err != nil {
		return 0, err
	}
	p := layout.Place{Path: dir, ID: keys.NewFileID(), Policy: "encrypt"}
	if over := places.Over(dir); over != nil {
		p.Policy, p.KEK, p.Adopt = over.Place.Policy, over.Place.KEK, over.Place.Adopt
	}
	next.Places = append(next.Places, p)
	return len(next.Places) - 1, nil
}

// choose puts name into one of the lists of globs of p, and out of the other.
func choose(p *layout.Place, name string, encrypt bool) {
	glob := escape(name)
	in, out := &p.Clear, &p.Encrypt
	if encrypt {
		in, out = out, in
	}
	same := func(g string) bool { return strings.EqualFold(g, glob) }
	*out = slices.DeleteFunc(*out, same)
	if !slices.ContainsFunc(*in, same) {
		*in = append(*in, glob)
	}
}

// escape is the glob that matches name alone.
func escape(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}

// chosen refuses a choice without effect: something of more weight decides over name.
func chosen(next *layout.Settings, dir, name string, encrypt bool) error {
	if err := next.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	places, err := layout.NewPlaces(next)
	if err != nil {
		return err
	}
	v := places.Classify(name, places.At(dir), true)
	if (v.Class == layout.Encrypt) == encrypt && (v.Class == layout.Clear) == !encrypt {
		return nil
	}
	if v.Base != strings.ToLower(name) && v.About != "settings" {
		return fmt.Errorf("%s goes by the name that it stands for, %s; say it of that one", name, v.Base)
	}
	return fmt.Errorf("the pattern %q of the %s decides over %s first; vmcryptfs settings or policy list show the patterns", v.Pattern, v.About, name)
}
