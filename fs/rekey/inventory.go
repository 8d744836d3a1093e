package rekey

import (
	"context"
	"slices"

	"vmcryptfs/fs/wire"
	"vmcryptfs/layout"
)

// Inventory tells which KEK opens which encrypted files of a datastore, by the lockers in
// their headers. What a locker says is not proven: that takes the KEK.
type Inventory struct {
	Uses map[wire.KeyName]*Use
	// Unread are the files and directories whose lockers cannot be told, and why, in the
	// order of the walk.
	Unread []wire.Failure
}

// Use is what one KEK opens.
type Use struct {
	Files int64    // that have a locker under it
	Lost  int64    // of these, the files that no other KEK opens
	Paths []string // of these files below BACKING, sorted, if they were asked for
}

// TakeInventory reads the header of every encrypted file of the datastore whose BACKING is
// open as root, with no key. Uses has paths only if withPaths. A file that cannot be read is
// in Unread; the end of ctx is an error.
func TakeInventory(ctx context.Context, root int, withPaths bool) (*Inventory, error) {
	v := &Inventory{Uses: map[wire.KeyName]*Use{}}
	err := scan(ctx, root, func(rel string, s layout.Slots, err error) error {
		if err != nil {
			v.Unread = append(v.Unread, wire.Failure{Path: rel, Err: err})
			return nil
		}
		for _, use := range v.count(s.Header) {
			if withPaths {
				use.Paths = append(use.Paths, rel)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, use := range v.Uses {
		slices.Sort(use.Paths)
	}
	return v, nil
}

// count counts the file with header h once for each KEK, and gives the uses of these. A
// locker of an unknown wrap may open the file too, so no KEK is the file's last then.
func (v *Inventory) count(h *layout.Header) (uses []*Use) {
	foreign := false
	var opens []wire.KeyName
	for i := range h.Lockers {
		switch locker := &h.Lockers[i]; locker.Wrap {
		case 0: // no locker
		case layout.WrapKMIP:
			name := wire.KeyName{Provider: locker.Provider, Identifier: locker.KeyID}
			if !slices.Contains(opens, name) {
				opens = append(opens, name)
			}
		default:
			foreign = true
		}
	}
	for _, name := range opens {
		use := v.Uses[name]
		if use == nil {
			use = &Use{}
			v.Uses[name] = use
		}
		use.Files++
		if len(opens) == 1 && !foreign {
			use.Lost++
		}
		uses = append(uses, use)
	}
	return uses
}
