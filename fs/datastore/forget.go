package datastore

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Known is a datastore that this host remembers.
type Known struct {
	ID       string
	Path     string // where it was when it was last verified
	Provider string
	KEK      string
	Serial   uint64
}

func (r *record) known() Known {
	path := r.Path
	if strings.HasPrefix(path, `"`) { // placeOf has quoted it
		if raw, err := strconv.Unquote(path); err == nil {
			path = raw
		}
	}
	return Known{ID: r.ID, Path: path, Provider: r.Provider, KEK: r.KEK, Serial: r.Serial}
}

// Known lists what this host remembers, by path.
func (h *Host) Known() ([]Known, error) {
	all, err := h.records()
	if err != nil {
		return nil, err
	}
	var known []Known
	for i := range all {
		known = append(known, all[i].known())
	}
	slices.SortFunc(known, func(a, b Known) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.ID, b.ID)) })
	return known, nil
}

// Forget removes k from the memory: the next mount there believes what it finds, as on a
// host that has never seen it. What was remembered since Known is kept.
func (h *Host) Forget(k Known) error {
	dir, unlock, err := h.lockState()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := h.readMemory(dir)
	if err != nil {
		return err
	}
	kept := slices.DeleteFunc(slices.Clone(all), func(r record) bool { return r.known() == k })
	if len(kept) == len(all) {
		return nil
	}
	return h.writeMemory(dir, kept)
}
