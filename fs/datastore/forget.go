package datastore

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Known is a datastore remembered by this host.
type Known struct {
	ID       string
	Path     string // of the last verification
	Provider string
	KEK      string
	Serial   uint64

	fs string // file system of the path
}

// InPlace reports whether the path, or the remaining part of the path, lies in the datastore's
// file system. Elsewhere, the datastore's file system may not be mounted, and nobody can tell its
// content.
func (k Known) InPlace() (bool, error) {
	for path := k.Path; ; path = filepath.Dir(path) {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) && path != filepath.Dir(path) {
			continue
		}
		if err != nil {
			return false, &os.PathError{Op: "open", Path: path, Err: err}
		}
		p, err := locationOf(path, fd)
		unix.Close(fd)
		return p.fs == k.fs, err
	}
}

func (r *record) known() Known {
	path := r.Path
	if strings.HasPrefix(path, `"`) { // placeOf has quoted it
		if raw, err := strconv.Unquote(path); err == nil {
			path = raw
		}
	}
	return Known{ID: r.ID, Path: path, Provider: r.Provider, KEK: r.KEK, Serial: r.Serial, fs: r.FS}
}

// Known lists the remembered datastores, by path.
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

// Forget removes k from the memory: the next mount there believes the settings found, as on a
// host without memory of the datastore. A record changed since k was listed stays.
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
