package rekey

import (
	"context"
	"slices"

	"vmcryptfs/fs/wire"
	"vmcryptfs/layout"
)

// Inventory says which KEK opens which encrypted files of a datastore, by the lockers in the
// headers. The content of a locker is not proven, since a proof needs the KEK.
type Inventory struct {
	Uses map[wire.KeyName]*Use
	// Unread are the files and directories whose lockers cannot be told, and why, in the
	// order of the walk.
	Unread []wire.Failure
}

// Use is the set of files that one KEK opens.
type Use struct {
	Files int64    // files with a locker under the KEK
	Lost  int64    // of Files, those that no other KEK opens
	Paths []string // of Files, below BACKING, sorted; nil unless asked for
}

// TakeInventory reads the header of every encrypted file in the datastore whose BACKING is open as
// root, without any key. Uses has paths only with withPaths. A file that cannot be read is in
// Unread. The end of ctx is an error.
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

// count counts the file with header h once for each KEK, and gives the Uses of the KEKs. A locker
// of an unknown wrap may also open the file; then no KEK counts as the file's last.
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
