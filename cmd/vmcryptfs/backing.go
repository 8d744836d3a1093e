package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/layout"
)

// openBacking opens a regular file of BACKING for reading.
func openBacking(path string) (*cryptfile.OSFile, *unix.Stat_t, error) {
	fd, st, err := byname.Open(unix.AT_FDCWD, path, unix.O_RDONLY)
	if _, unfit := errors.AsType[*byname.UnfitError](err); unfit {
		err = fmt.Errorf("%s is not a regular file; name one", path)
	}
	if err != nil {
		return nil, nil, err
	}
	return cryptfile.NewOSFile(fd), &st, nil
}

// rulesOf gives the rules of the datastore that path lies in; the built-in ones where
// there is none.
func rulesOf(path string) (*layout.Rules, error) {
	root, err := datastoreAbove(path)
	if err != nil || root == "" {
		return nil, err
	}
	return rulesIn(root)
}

// rulesIn gives the rules of the datastore at backing. Without a key their seal is not
// checked.
func rulesIn(backing string) (*layout.Rules, error) {
	store, err := datastore.Open(backing, false)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return layout.NewRules(store.Settings().Encrypt, store.Settings().Clear)
}
