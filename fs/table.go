package fs

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
)

// table is the inode table.
type table struct {
	mu      sync.Mutex // a leaf: nothing is locked and no I/O done under it
	last    uint64     // how many nodes were made
	rootIno uint64     // number of BACKING's root
	byID    map[uint64]*node
	byKey   map[backing.Key]*node
	byName  map[nameKey]*node
	devices []uint64        // st_dev by index; the first is BACKING's
	bound   map[uint64]bool // by st_dev: nodes there are bound

	device   uint64           // st_dev of BACKING; immutable
	paths    bool             // its nodes are bound; immutable
	handles  bool             // BACKING's file handles last; immutable
	now      func() time.Time // immutable
	fds      descriptors      // of the nodes
	places   places           // where inodes were found
	believed believed
}

func (t *table) init(fd int, st *unix.Stat_t) {
	t.device, t.bound = st.Dev, map[uint64]bool{st.Dev: t.paths}
	t.byID = make(map[uint64]*node)
	t.byKey = make(map[backing.Key]*node)
	t.byName = make(map[nameKey]*node)
	t.now = time.Now
	t.believed.by = make(map[nameKey]map[believer]time.Time)
	t.rootIno = t.number(backing.KeyOf(st))
	t.handles = backing.LastingHandles(fd)
	t.fds.limit = descriptorLimit()
	root := t.add(fd, st, 0) // the kernel knows it by generation 0
	root.lookups = 1         // never forgotten
}

// add makes a node, which gets the descriptor later, but for the first.
func (t *table) add(fd int, st *unix.Stat_t, b backing.Birth) *node {
	t.last++
	ino := t.number(backing.KeyOf(st))
	n := &node{table: t, id: t.freeID(ino), order: t.last, life: t.last, ino: ino, born: b, kind: st.Mode & unix.S_IFMT, bound: t.bound[st.Dev]}
	n.key, n.birth = backing.KeyOf(st), b
	n.mode.Store(st.Mode)
	n.fd, n.first = -1, -1
	t.fds.offer(n, fd, true)
	t.byID[n.id] = n
	t.byKey[n.key] = n
	return n
}

// idOf is the node id for an inode number, and the number for an id. They are the same,
// so that the kernel's file handles hold at every mount; but the root must have its own.
func (t *table) idOf(ino uint64) uint64 {
	switch ino {
	case t.rootIno:
		return fuse.FUSE_ROOT_ID
	case fuse.FUSE_ROOT_ID:
		return t.rootIno
	default:
		return ino
	}
}

// freeID is idOf, or where two numbers of different file systems meet, or BACKING gave
// number 0, an id that holds only as long as the kernel knows the node.
func (t *table) freeID(ino uint64) uint64 {
	id := t.idOf(ino)
	for i := t.last; id == 0 || t.byID[id] != nil; i++ {
		id = 1<<63 | i
	}
	return id
}

// number is the inode number to show for key: BACKING's own, and for another file system
// below BACKING one with its index in the top byte.
func (t *table) number(key backing.Key) uint64 {
	i := slices.Index(t.devices, key.Dev)
	if i < 0 {
		i = len(t.devices)
		t.devices = append(t.devices, key.Dev)
	}
	return key.Ino ^ uint64(i)<<56
}

// keyFor is the backing inode for the id of a node that is not there.
func (t *table) keyFor(id uint64) backing.Key {
	t.mu.Lock()
	defer t.mu.Unlock()
	ino := t.idOf(id)
	if i := ino >> 56; i < uint64(len(t.devices)) {
		return backing.Key{Dev: t.devices[i], Ino: ino ^ i<<56}
	}
	return backing.Key{Dev: t.devices[0], Ino: ino}
}

// idFor is the id of the node of a backing inode, be it there or not.
func (t *table) idFor(key backing.Key) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byKey[key]; n != nil {
		return n.id
	}
	return t.idOf(t.number(key))
}

// shown is the inode number that is or would be shown for key.
func (t *table) shown(key backing.Key) uint64 {
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

// enter counts a lookup of the inode that fd, an O_PATH descriptor, st and b belong to,
// and takes over fd. parent and name say where it was found; parent nil: nowhere.
func (t *table) enter(fd int, st *unix.Stat_t, b backing.Birth, parent *node, name string) *node {
	t.mu.Lock()
	n, spare, dead := t.admit(fd, st, b)
	n.lookups++
	if parent != nil {
		t.setName(nameKey{parent, name}, n)
	}
	t.mu.Unlock()
	if spare {
		unix.Close(fd)
	}
	closeAll(dead)
	return n
}

// admit finds or makes the node of an inode. spare: it has a descriptor already. dead are
// nodes to be closed after unlocking.
func (t *table) admit(fd int, st *unix.Stat_t, b backing.Birth) (n *node, spare bool, dead []*node) {
	old := t.byKey[backing.KeyOf(st)]
	if old == nil {
		return t.add(fd, st, b), false, nil
	}
	same := old.birth == b && old.kind == st.Mode&unix.S_IFMT
	if taken, known := t.fds.offer(old, fd, same); known {
		return old, !taken, nil
	}
	n, dead = t.supersede(old, fd, st, b)
	return n, false, dead
}

// supersede makes a node of an inode that has got the number of another, which other
// hands removed from BACKING while no descriptor kept the number. If they have one node
// id, the kernel sees by the generation that its inode is none any more, and gives back
// the lookups of both under that id. Until then the names of old lead the kernel to n.
func (t *table) supersede(old *node, fd int, st *unix.Stat_t, b backing.Birth) (n *node, dead []*node) {
	delete(t.byKey, old.key)
	delete(t.byID, old.id)
	n = t.add(fd, st, b)
	heir := old
	if n.id != old.id {
		t.byID[old.id] = old
	} else if old.lookups > 0 {
		n.lookups, old.lookups = old.lookups, 0
		n.life, n.lost = old.life, old.lost
		heir = n
	}
	for _, key := range slices.Clone(old.names) {
		t.loseToOthers(heir, key)
		dead = append(dead, t.drop(key)...)
	}
	return n, t.reap(old, dead)
}

// setName makes key a name of n, and of nobody else.
func (t *table) setName(key nameKey, n *node) {
	switch old := t.byName[key]; old {
	case n:
		return
	case nil:
		key.parent.refs++
	default:
		t.loseToOthers(old, key)
		t.cutName(old, key)
	}
	t.byName[key] = n
	n.names = append(n.names, key)
	t.fds.set(n, func() { n.named = true })
}

// cutName takes key from n, leaving the reference that it holds on its directory.
func (t *table) cutName(n *node, key nameKey) {
	n.names = slices.DeleteFunc(n.names, func(k nameKey) bool { return k == key })
	if len(n.names) == 0 {
		n.last = key
		t.fds.set(n, func() { n.named = false })
	}
}

// addName notes a new name of n in the directory dir.
func (t *table) addName(n, dir *node, name string) {
	dir.moves.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setName(nameKey{dir, name}, n)
}

// removed notes that the name at key was removed through the mount.
func (t *table) removed(key nameKey) {
	t.takeName(key, func(n *node) { t.lose(n, key) })
}

// foundGone notes that other hands took the name at key in BACKING.
func (t *table) foundGone(key nameKey) {
	t.takeName(key, func(n *node) { t.loseToOthers(n, key) })
}

// takeName forgets that the name at key is anyone's. The node that had it loses it by lose.
func (t *table) takeName(key nameKey, lose func(*node)) {
	t.mu.Lock()
	if n := t.byName[key]; n != nil {
		lose(n)
	}
	dead := t.drop(key)
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
	from.parent.moves.Add(1)
	to.parent.moves.Add(1)
	t.mu.Lock()
	moved, other := t.byName[from], t.byName[to]
	t.follow(from, to)
	if exchange {
		t.follow(to, from)
	} else if other != nil && other != moved {
		t.lose(other, to)
	}
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

// namesOf are the known names of n, and the one that n lost last if there is none.
func (t *table) namesOf(n *node) (names []nameKey, last nameKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(n.names), n.last
}

func (t *table) keyOf(n *node) backing.Key {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.key
}

// isInode tells if n's backing inode is the one that fd stands for.
func (t *table) isInode(n *node, fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	b := backing.BirthOf(fd, t.handles)
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.key == backing.KeyOf(&st) && n.birth == b && n.kind == st.Mode&unix.S_IFMT
}

// rekey gives n another backing inode.
func (t *table) rekey(n *node, key backing.Key, b backing.Birth) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	n.key, n.birth = key, b
	t.byKey[key] = n
}

// visit counts a lookup of the node of an id; nil if there is none.
func (t *table) visit(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n != nil {
		n.lookups++
	}
	return n
}

// called is the node that was last known by a name, or nil.
func (t *table) called(parent *node, name string) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byName[nameKey{parent, name}]
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
	if t.byID[n.id] == n {
		delete(t.byID, n.id)
	}
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
