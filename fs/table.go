package fs

import (
	"errors"
	"slices"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// table is the inode table.
type table struct {
	mu      sync.Mutex // a leaf: nothing is locked and no I/O done under it
	last    uint64     // node id given out last
	byID    map[uint64]*node
	byKey   map[inodeKey]*node
	byName  map[nameKey]*node
	devices []uint64 // st_dev by index; the first is BACKING's
}

func (t *table) init(fd int, st *unix.Stat_t) {
	t.byID = make(map[uint64]*node)
	t.byKey = make(map[inodeKey]*node)
	t.byName = make(map[nameKey]*node)
	root := t.add(fd, st)
	root.lookups = 1 // never forgotten
}

func (t *table) add(fd int, st *unix.Stat_t) *node {
	t.last++ // the first is fuse.FUSE_ROOT_ID
	n := &node{id: t.last, ino: t.number(keyOf(st)), kind: st.Mode & unix.S_IFMT, fd: fd, first: -1}
	n.key = keyOf(st)
	n.mode.Store(st.Mode)
	t.byID[n.id] = n
	t.byKey[n.key] = n
	return n
}

// number is the inode number to show for key: BACKING's own, and for another file system
// below BACKING one with its index in the top byte.
func (t *table) number(key inodeKey) uint64 {
	i := slices.Index(t.devices, key.dev)
	if i < 0 {
		i = len(t.devices)
		t.devices = append(t.devices, key.dev)
	}
	return key.ino ^ uint64(i)<<56
}

// shown is the inode number that is or would be shown for key.
func (t *table) shown(key inodeKey) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byKey[key]; n != nil {
		return n.ino
	}
	return t.number(key)
}

func (t *table) root() *node { return t.get(fuse.FUSE_ROOT_ID) }

// get gives the node of an id, or nil.
func (t *table) get(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// enter counts a lookup of the inode that fd, an O_PATH descriptor, and st belong to, and
// takes over fd. parent and name say where it was found; parent nil: nowhere.
func (t *table) enter(fd int, st *unix.Stat_t, parent *node, name string) *node {
	t.mu.Lock()
	n := t.byKey[keyOf(st)]
	known := n != nil && n.kind == st.Mode&unix.S_IFMT
	if !known {
		n = t.add(fd, st)
	}
	n.lookups++
	n.mode.Store(st.Mode)
	if parent != nil {
		t.setName(nameKey{parent, name}, n)
	}
	t.mu.Unlock()
	if known {
		unix.Close(fd)
	}
	return n
}

// setName makes key a name of n, and of nobody else.
func (t *table) setName(key nameKey, n *node) {
	switch old := t.byName[key]; old {
	case n:
		return
	case nil:
		key.parent.refs++
	default:
		t.cutName(old, key)
	}
	t.byName[key] = n
	n.names = append(n.names, key)
}

// cutName takes key from n, leaving the reference that it holds on its directory.
func (t *table) cutName(n *node, key nameKey) {
	n.names = slices.DeleteFunc(n.names, func(k nameKey) bool { return k == key })
	if len(n.names) == 0 {
		n.lastName = key.name
	}
}

// dropName forgets that name in parent is anyone's.
func (t *table) dropName(parent *node, name string) {
	t.mu.Lock()
	dead := t.drop(nameKey{parent, name})
	t.mu.Unlock()
	closeAll(dead)
}

func (t *table) drop(key nameKey) (dead []*node) {
	n := t.byName[key]
	if n == nil {
		return nil
	}
	delete(t.byName, key)
	t.cutName(n, key)
	return t.unref(key.parent, nil)
}

// moveName follows a rename; exchange: the new name's node gets the old name.
func (t *table) moveName(from, to nameKey, exchange bool) {
	t.mu.Lock()
	moved, other := t.byName[from], t.byName[to]
	dead := append(t.drop(from), t.drop(to)...)
	if moved != nil {
		t.setName(to, moved)
	}
	if other != nil && exchange {
		t.setName(from, other)
	}
	t.mu.Unlock()
	closeAll(dead)
}

// namesOf are the known names of n, and what it was called last if there is none.
func (t *table) namesOf(n *node) (names []nameKey, lastName string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(n.names), n.lastName
}

func (t *table) keyOf(n *node) inodeKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.key
}

// rekey gives n another backing inode.
func (t *table) rekey(n *node, key inodeKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	n.key = key
	t.byKey[key] = n
}

// ref keeps n while a handle is open.
func (t *table) ref(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.refs++
}

func (t *table) release(n *node) {
	t.mu.Lock()
	dead := t.unref(n, nil)
	t.mu.Unlock()
	closeAll(dead)
}

// forget takes back lookups that were counted by enter.
func (t *table) forget(id, lookups uint64) {
	t.mu.Lock()
	n := t.byID[id]
	if n == nil || id == fuse.FUSE_ROOT_ID {
		t.mu.Unlock()
		return
	}
	n.lookups -= min(lookups, n.lookups)
	dead := t.reap(n, nil)
	t.mu.Unlock()
	closeAll(dead)
}

func (t *table) unref(n *node, dead []*node) []*node {
	n.refs--
	return t.reap(n, dead)
}

// reap removes n if nobody knows it any more, and then perhaps directories that were
// kept for its names. What it appends to dead is to be closed after unlocking.
func (t *table) reap(n *node, dead []*node) []*node {
	if n.lookups > 0 || n.refs > 0 || n.gone {
		return dead
	}
	n.gone = true
	delete(t.byID, n.id)
	if t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	dead = append(dead, n)
	for _, key := range n.names {
		delete(t.byName, key)
		dead = t.unref(key.parent, dead)
	}
	n.names = nil
	return dead
}

func closeAll(nodes []*node) error {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.close())
	}
	return errors.Join(errs...)
}

// close releases all nodes, when no request can come any more.
func (t *table) close() error {
	t.mu.Lock()
	var all []*node
	for _, n := range t.byID {
		n.gone = true
		all = append(all, n)
	}
	clear(t.byID)
	clear(t.byKey)
	clear(t.byName)
	t.mu.Unlock()
	return closeAll(all)
}

// size is how many nodes there are.
func (t *table) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}
