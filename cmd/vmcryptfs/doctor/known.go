package doctor

import (
	"context"
	"slices"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/policy"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
)

// KnownKey is a key in use on this host, with the datastore of the key.
type KnownKey struct {
	keys.Ref
	servers []string // of the provider, where the name does not identify the provider; nil: the name does
	dirs    []string // BACKING and mountpoint of the datastore
	daemon  int      // process id of the datastore's daemon; 0: none
}

// of reports whether the key is one of p.
func (k *KnownKey) of(p keys.Provider) bool {
	if k.Provider != p.Name() {
		return false
	}
	return k.servers == nil || slices.ContainsFunc(p.Health(), func(h keys.ServerHealth) bool {
		return slices.Contains(k.servers, h.Address)
	})
}

// KnownKeys gives the keys held by mounts on this host. Where backing is not empty, the keys of
// the datastore at backing come first.
func KnownKeys(ctx context.Context, backing string) (known []KnownKey, err error) {
	dir, err := datastore.RunDir()
	if err != nil {
		return nil, err
	}
	clients, found, _ := admin.Mounts(ctx, dir) // a silent daemon contributes no keys
	if backing != "" {
		if known, err = keysIn(backing, found); err != nil {
			return nil, err
		}
	}
	for i, client := range clients {
		if status, err := client.Status(ctx); err == nil {
			known = append(known, keysOf(status, found[i])...)
		}
	}
	return known, nil
}

// keysIn gives the current key of the datastore at backing, and then those that its policies and
// places name. Where this host remembers the check value of the current key, the Ref includes the
// value, so a KMS restored with another key is noticed.
func keysIn(backing string, found []admin.Mount) (known []KnownKey, err error) {
	store, err := datastore.Open(backing, false)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	if err := store.Trust("", "", false); err != nil {
		return nil, err
	}
	k := KnownKey{Ref: store.KEK(), dirs: []string{store.Path()}}
	for _, m := range found {
		if m.Backing == store.Path() {
			k.dirs, k.daemon = append(k.dirs, m.Mountpoint), m.PID
		}
	}
	known = append(known, k)
	seen := map[wire.KeyName]bool{{Provider: k.Provider, Identifier: k.ID}: true}
	for _, named := range policy.Keys(store.Settings()) {
		if !seen[named.KeyName] {
			seen[named.KeyName] = true
			known = append(known, KnownKey{Ref: keys.Ref{Provider: named.Provider, ID: named.Identifier}, dirs: k.dirs, daemon: k.daemon})
		}
	}
	return known, nil
}

// keysOf gives the keys held by a mount, the datastore's current key first.
func keysOf(s admin.Status, m admin.Mount) (known []KnownKey) {
	held := slices.Clone(s.Keys)
	slices.SortStableFunc(held, func(a, b admin.Key) int {
		switch {
		case a.KeyName == b.KeyName:
			return 0
		case a.KeyName == s.KEK:
			return -1
		case b.KeyName == s.KEK:
			return 1
		}
		return 0
	})
	for _, key := range held {
		known = append(known, KnownKey{
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
