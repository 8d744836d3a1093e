package main

import (
	"context"
	"slices"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
)

// knownKey is a key that this host knows of, and where it is used.
type knownKey struct {
	keys.Ref
	servers []string // of the provider, where the name alone does not tell which it is
	dirs    []string // of its datastore
	daemon  int      // process id of the daemon that serves the datastore; 0: none
}

// of tells if the key is one of p.
func (k *knownKey) of(p keys.Provider) bool {
	if k.Provider != p.Name() {
		return false
	}
	return k.servers == nil || slices.ContainsFunc(p.Health(), func(h keys.ServerHealth) bool {
		return slices.Contains(k.servers, h.Address)
	})
}

// knownKeys are the keys that mounts on this host hold and, first, that of the datastore
// at backing, if one is named.
func knownKeys(ctx context.Context, backing string) (known []knownKey, err error) {
	dir, err := datastore.RunDir()
	if err != nil {
		return nil, err
	}
	clients, found, _ := admin.Mounts(ctx, dir) // one that does not answer tells no keys
	if backing != "" {
		k, err := keyOf(backing, found)
		if err != nil {
			return nil, err
		}
		known = append(known, k)
	}
	for i, client := range clients {
		if status, err := client.Status(ctx); err == nil {
			known = append(known, keysOf(status, found[i])...)
		}
	}
	return known, nil
}

// keyOf is the current key of the datastore at backing, with its check value if this
// host remembers it: then a KMS that was restored empty shows.
func keyOf(backing string, found []admin.Mount) (knownKey, error) {
	at, err := datastoreAt(backing)
	if err != nil {
		return knownKey{}, err
	}
	store, err := datastore.Open(at, false)
	if err != nil {
		return knownKey{}, err
	}
	defer store.Close()
	if err := store.Trust("", "", false); err != nil {
		return knownKey{}, err
	}
	k := knownKey{Ref: store.KEK(), dirs: []string{store.Path()}}
	for _, m := range found {
		if m.Backing == store.Path() {
			k.dirs, k.daemon = append(k.dirs, m.Mountpoint), m.PID
		}
	}
	return k, nil
}

// keysOf are the keys that a mount holds, its datastore's current one first.
func keysOf(s admin.Status, m admin.Mount) (known []knownKey) {
	held := slices.Clone(s.Keys)
	slices.SortStableFunc(held, func(a, b admin.Key) int {
		return trueFirst(a.KeyName == s.KEK, b.KeyName == s.KEK)
	})
	for _, key := range held {
		known = append(known, knownKey{
			Ref:     keys.Ref{Provider: key.Provider, ID: key.Identifier},
			servers: serversOf(s, key.Provider),
			dirs:    []string{m.Backing, m.Mountpoint},
			daemon:  m.PID,
		})
	}
	return known
}

// serversOf are the addresses of a mount's provider, never nil.
func serversOf(s admin.Status, provider string) []string {
	list := []string{}
	for _, p := range s.Providers {
		if p.Name == provider {
			for _, server := range p.Servers {
				list = append(list, server.Address)
			}
		}
	}
	return list
}
