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
	byID    map[uint64]*inode
	byKey   map[backing.Key]*inode
	byName  map[nameKey]*inode
	devices []uint64        // st_dev by index; the first is BACKING's
	bound   map[uint64]bool // by st_dev: nodes there are bound

	device   uint64                       // st_dev of BACKING; immutable
	paths    bool                         // its nodes are bound; immutable
	handles  bool                         // BACKING's file handles last; immutable
	fresh    func(st *unix.Stat_t) *inode // makes an inode with its owner; immutable
	now      func() time.Time             // immutable
	fds      descriptors                  // of the nodes
	places   places                       // where inodes were found
	believed believed
}

func (t *table) init(fd int, st *unix.Stat_t, fresh func(st *unix.Stat_t) *inode) {
	t.fresh = fresh
	t.device, t.bound = st.Dev, map[uint64]bool{st.Dev: t.paths}
	t.byID = make(map[uint64]*inode)
	t.byKey = make(map[backing.Key]*inode)
	t.byName = make(map[nameKey]*inode)
	t.fds.close = unix.Close
	if t.now == nil {
		t.now = time.Now
	}
	t.believed.by = make(map[nameKey]map[believer]time.Time)
	t.rootIno = t.number(backing.KeyOf(st))
	t.handles = backing.LastingHandles(fd)
	t.fds.limit = descriptorLimit()
	root := t.add(fd, st, 0) // the kernel knows it by generation 0
	root.lookups = 1         // never forgotten
}

// add makes an inode. mu is held.
func (t *table) add(fd int, st *unix.Stat_t, b backing.Birth) *inode {
	t.last++
	n := t.fresh(st)
	n.table, n.order, n.life = t, t.last, t.last
	n.key, n.birth, n.born = backing.KeyOf(st), b, b
	n.kind, n.bound = st.Mode&unix.S_IFMT, t.bound[st.Dev]
	n.ino = t.number(n.key)
	n.id = t.freeID(n.ino)
	n.fd = -1
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

// unlock ends what began with mu.Lock, and closes the descriptors that were given up under it: the
// last close of a removed file may take as long as the file is large.
func (t *table) unlock() {
	t.mu.Unlock()
	t.fds.closeSurplus()
}

func (t *table) root() *inode { return t.get(fuse.FUSE_ROOT_ID) }

// get gives the inode of an id, or nil.
func (t *table) get(id uint64) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// enter counts a lookup of the inode that fd, an O_PATH descriptor, st and b belong to,
// and takes over fd. at says where it was found; the zero one: nowhere.
func (t *table) enter(fd int, st *unix.Stat_t, b backing.Birth, at nameKey) *inode {
	t.mu.Lock()
	n, spare, dead := t.admit(fd, st, b)
	n.lookups++
	if at.parent != nil {
		t.setName(at, n)
	}
	t.unlock()
	if spare {
		unix.Close(fd)
	}
	closeAll(dead)
	return n
}

// admit finds or makes the node of an inode. spare: it has a descriptor already. dead are
// nodes to be closed after unlocking.
func (t *table) admit(fd int, st *unix.Stat_t, b backing.Birth) (n *inode, spare bool, dead []*inode) {
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
func (t *table) supersede(old *inode, fd int, st *unix.Stat_t, b backing.Birth) (n *inode, dead []*inode) {
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
func (t *table) setName(key nameKey, n *inode) {
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
	t.fds.change(n, func() { n.named = true })
}

// cutName takes key from n, leaving the reference that it holds on its directory.
func (t *table) cutName(n *inode, key nameKey) {
	n.names = slices.DeleteFunc(n.names, func(k nameKey) bool { return k == key })
	if len(n.names) == 0 {
		n.last = key
		t.fds.change(n, func() { n.named = false })
	}
}

// addName notes a new name of n.
func (n *inode) addName(at nameKey) {
	at.parent.moves.Add(1)
	n.table.mu.Lock()
	defer n.table.unlock()
	n.table.setName(at, n)
}

// removed notes that the name at key was removed through the mount.
func (t *table) removed(key nameKey) {
	t.takeName(key, func(n *inode) { t.lose(n, key) })
}

// foundGone notes that other hands took the name at key in BACKING.
func (t *table) foundGone(key nameKey) {
	t.takeName(key, func(n *inode) { t.loseToOthers(n, key) })
}

// takeName forgets that the name at key is anyone's. The node that had it loses it by lose.
func (t *table) takeName(key nameKey, lose func(*inode)) {
	t.mu.Lock()
	if n := t.byName[key]; n != nil {
		lose(n)
	}
	dead := t.drop(key)
	t.unlock()
	closeAll(dead)
}

func (t *table) drop(key nameKey) (dead []*inode) {
	n := t.byName[key]
	if n == nil {
		return nil
	}
	delete(t.byName, key)
	t.cutName(n, key)
	return t.dropRef(key.parent, nil)
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
	t.unlock()
	closeAll(dead)
}

// knownNames are the known names of n, and the one that n lost last if there is none.
func (n *inode) knownNames() (names []nameKey, last nameKey) {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	return slices.Clone(n.names), n.last
}

// identity is that of n's backing inode, the one that has n's name if there are more.
func (n *inode) identity() backing.Key {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	return n.key
}

// isInode reports whether n's backing inode is the one that fd stands for.
func (n *inode) isInode(fd int) bool {
	t := n.table
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	b := backing.BirthOf(fd, t.handles)
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.key == backing.KeyOf(&st) && n.birth == b && n.kind == st.Mode&unix.S_IFMT
}

// leadTo has the names of n lead to another backing inode. What was found by the key before is
// n no more.
func (n *inode) leadTo(key backing.Key, b backing.Birth) {
	t := n.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	n.key, n.birth = key, b
	t.byKey[key] = n
}

// visit counts a lookup of the node of an id; nil if there is none.
func (t *table) visit(id uint64) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n != nil {
		n.lookups++
	}
	return n
}

// called is the inode that was last known by a name, or nil.
func (t *table) called(at nameKey) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byName[at]
}

// ref keeps n while a handle is open, until unref.
func (n *inode) ref() {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	n.refs++
}

// unref takes back what ref counted.
func (n *inode) unref() {
	n.table.mu.Lock()
	dead := n.table.dropRef(n, nil)
	n.table.mu.Unlock()
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

func (t *table) dropRef(n *inode, dead []*inode) []*inode {
	n.refs--
	return t.reap(n, dead)
}

// reap removes n if nobody knows it any more, and then perhaps directories that were
// kept for its names. What it appends to dead is to be closed after unlocking.
func (t *table) reap(n *inode, dead []*inode) []*inode {
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
		dead = t.dropRef(key.parent, dead)
	}
	n.names = nil
	return dead
}

func closeAll(nodes []*inode) error {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.close())
	}
	return errors.Join(errs...)
}

// close releases all nodes, when no request can come any more.
func (t *table) close() error {
	t.mu.Lock()
	var all []*inode
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

// counts are how much a table holds.
type counts struct {
	Inodes, Names, Keys int
	Descriptors         int    // open, of inodes
	Made                uint64 // inodes so far
}

// count counts.
func (t *table) count() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fds.mu.Lock()
	defer t.fds.mu.Unlock()
	return counts{len(t.byID), len(t.byName), len(t.byKey), t.fds.open, t.last}
}
