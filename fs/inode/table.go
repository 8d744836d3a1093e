package inode

import (
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
)

// RootID is the node id of BACKING itself (FUSE_ROOT_ID in linux/fuse.h).
const RootID = 1

// Table knows the inodes known to the kernel, and those with open files. The exported fields are
// set before Init. All methods are safe for concurrent use after Init.
type Table struct {
	// Nothing but descriptors.mu is locked under mu. No I/O is done under mu, and no descriptor
	// closed: see unlock and closeAll.
	mu      sync.Mutex
	last    uint64 // number of inodes made
	rootIno uint64 // number of BACKING's root
	byID    map[uint64]*Inode
	byKey   map[backing.Key]*Inode
	byName  map[Place]*Inode
	devices []uint64        // st_dev by index; the first is BACKING's
	bound   map[uint64]bool // by st_dev: whether the inodes of that file system are bound

	ByPaths bool // BACKING's inodes are bound
	// Harmless reports whether the loss of a name is nothing to a file, by the rules that hold. Nil:
	// no loss is. Harmless is called with mu held, and does no I/O.
	Harmless func(at Place) bool
	anew     time.Time                    // since then other rules hold
	Now      func() time.Time             // nil: time.Now
	device   uint64                       // st_dev of BACKING; immutable
	handles  bool                         // BACKING's file handles last; immutable
	fresh    func(st *unix.Stat_t) *Inode // makes an inode with its owner; immutable
	fds      descriptors                  // of the inodes
	finder   finder                       // where inodes were found
	believed believed
}

// Init prepares the table for the BACKING whose root has the status st. fd is an O_PATH descriptor
// of the root, which the table takes over. fresh makes an inode with its Owner; fresh is called
// with locks held, and does nothing else.
func (t *Table) Init(fd int, st *unix.Stat_t, fresh func(st *unix.Stat_t) *Inode) {
	t.fresh = fresh
	t.device, t.bound = st.Dev, map[uint64]bool{st.Dev: t.ByPaths}
	t.byID = make(map[uint64]*Inode)
	t.byKey = make(map[backing.Key]*Inode)
	t.byName = make(map[Place]*Inode)
	t.fds.close = unix.Close
	if t.Now == nil {
		t.Now = time.Now
	}
	t.believed.by = make(map[Place]map[believer]time.Time)
	t.rootIno = t.number(backing.KeyOf(st))
	t.handles = backing.LastingHandles(fd)
	t.fds.limit = descriptorLimit()
	root := t.add(fd, st, 0) // the kernel knows the root by generation 0
	root.lookups = 1         // never forgotten
}

// add makes an inode. mu is held.
func (t *Table) add(fd int, st *unix.Stat_t, b backing.Birth) *Inode {
	t.last++
	n := t.fresh(st)
	n.table, n.Order, n.life = t, t.last, t.last
	n.key, n.birth, n.Born = backing.KeyOf(st), b, b
	n.Kind, n.Bound = st.Mode&unix.S_IFMT, t.bound[st.Dev]
	n.Ino = t.number(n.key)
	n.ID = t.freeID(n.Ino)
	n.fd = -1
	t.fds.offer(n, fd, true)
	t.byID[n.ID] = n
	t.byKey[n.key] = n
	return n
}

// idOf is the node id for an inode number, and the number for an id. Id and number are the same, so
// that the kernel's file handles are valid at every mount. The root alone has an id of its own,
// RootID.
func (t *Table) idOf(ino uint64) uint64 {
	switch ino {
	case t.rootIno:
		return RootID
	case RootID:
		return t.rootIno
	default:
		return ino
	}
}

// BirthOf is the birth of the inode that fd leads to.
func (t *Table) BirthOf(fd int) backing.Birth { return backing.BirthOf(fd, t.handles) }

// OnRoot reports whether an inode is in the file system of BACKING's root.
func (t *Table) OnRoot(key backing.Key) bool { return key.Dev == t.device }

// freeID returns idOf(ino), or a synthetic id, valid while the kernel knows the inode, for an inode
// whose number is 0 or taken by an inode of another file system.
func (t *Table) freeID(ino uint64) uint64 {
	id := t.idOf(ino)
	for i := t.last; id == 0 || t.byID[id] != nil; i++ {
		id = 1<<63 | i
	}
	return id
}

// number is the inode number to show for key: BACKING's own; for another file system below BACKING,
// the number there with the index of the file system in the top byte. mu is held.
func (t *Table) number(key backing.Key) uint64 {
	i := slices.Index(t.devices, key.Dev)
	if i < 0 {
		i = len(t.devices)
		t.devices = append(t.devices, key.Dev)
	}
	return key.Ino ^ uint64(i)<<56
}

// KeyFor is the backing inode that id stands for. KeyFor is for an id that the table has no inode
// of.
func (t *Table) KeyFor(id uint64) backing.Key {
	t.mu.Lock()
	defer t.mu.Unlock()
	ino := t.idOf(id)
	if i := ino >> 56; i < uint64(len(t.devices)) {
		return backing.Key{Dev: t.devices[i], Ino: ino ^ i<<56}
	}
	return backing.Key{Dev: t.devices[0], Ino: ino}
}

// IDFor is the id of a backing inode in the table, or the id that an inode outside the table would
// get.
func (t *Table) IDFor(key backing.Key) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byKey[key]; n != nil {
		return n.ID
	}
	return t.idOf(t.number(key))
}

// Shown is the inode number that is shown for key, or would be shown once the table has the inode.
func (t *Table) Shown(key backing.Key) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byKey[key]; n != nil {
		return n.Ino
	}
	return t.number(key)
}

// unlock unlocks mu, and then closes the descriptors that were given up under mu: the last close of
// a removed file may take as long as the file is large.
func (t *Table) unlock() {
	t.mu.Unlock()
	t.fds.closeSurplus()
}

// Root is the inode of BACKING itself, which is never given up.
func (t *Table) Root() *Inode { return t.Get(RootID) }

// Get gives the inode of an id, or nil.
func (t *Table) Get(id uint64) *Inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// Enter counts a lookup of the inode that fd, an O_PATH descriptor, st and b belong to, and takes
// over fd. at is the place where the inode was found; the zero Place: nowhere. Forget takes the
// lookup back.
func (t *Table) Enter(fd int, st *unix.Stat_t, b backing.Birth, at Place) *Inode {
	return t.enter(fd, st, b, at, false)
}

// EnterNew is Enter of an inode that the caller has just made, with no name but at. A known inode of
// the same number and without a name is a removed one, where nothing else tells the two apart: on a
// file system that goes by paths a descriptor does not keep a number. The new inode gets another id.
func (t *Table) EnterNew(fd int, st *unix.Stat_t, b backing.Birth, at Place) *Inode {
	return t.enter(fd, st, b, at, b == 0)
}

func (t *Table) enter(fd int, st *unix.Stat_t, b backing.Birth, at Place, fresh bool) *Inode {
	t.mu.Lock()
	n, spare, dead := t.admit(fd, st, b, fresh)
	n.lookups++
	if at.Dir != nil {
		t.setName(at, n)
	}
	t.unlock()
	if spare {
		unix.Close(fd)
	}
	closeAll(dead)
	return n
}

// admit finds or makes an inode; fresh: none without a name is found. spare: the inode has a descriptor
// already. The caller closes dead after unlocking mu, which is held.
func (t *Table) admit(fd int, st *unix.Stat_t, b backing.Birth, fresh bool) (n *Inode, spare bool, dead []*Inode) {
	old := t.byKey[backing.KeyOf(st)]
	if old == nil || fresh && len(old.names) == 0 { // old keeps its id, for a caller between look-up and open
		return t.add(fd, st, b), false, nil
	}
	same := old.birth == b && old.Kind == st.Mode&unix.S_IFMT
	if taken, known := t.fds.offer(old, fd, same); known {
		return old, !taken, nil
	}
	n, dead = t.supersede(old, fd, st, b)
	return n, false, dead
}

// supersede makes an inode n that has got the number of old. Other hands removed old's file from
// BACKING while no descriptor kept the number. If both have one node id, the generation shows the
// kernel that its inode is gone, and the kernel gives back the lookups of both under the id. Until
// then the names of old lead the kernel to n. mu is held.
func (t *Table) supersede(old *Inode, fd int, st *unix.Stat_t, b backing.Birth) (n *Inode, dead []*Inode) {
	delete(t.byKey, old.key)
	delete(t.byID, old.ID)
	n = t.add(fd, st, b)
	heir := old
	if n.ID != old.ID {
		t.byID[old.ID] = old
	} else if old.lookups > 0 {
		n.lookups, old.lookups = old.lookups, 0
		n.life, n.lost = old.life, old.lost.clone()
		heir = n
	}
	for _, key := range slices.Clone(old.names) {
		t.loseToOthers(heir, key)
		dead = append(dead, t.drop(key)...)
	}
	return n, t.reap(old, dead)
}

// setName makes key a name of n, and of no other inode. mu is held.
func (t *Table) setName(key Place, n *Inode) {
	switch old := t.byName[key]; old {
	case n:
		return
	case nil:
		key.Dir.refs++
	default:
		t.loseToOthers(old, key)
		t.cutName(old, key)
	}
	t.byName[key] = n
	n.names = append(n.names, key)
	t.fds.change(n, func() { n.named = true })
}

// cutName takes key from n; the reference of the name on its directory stays. mu is held.
func (t *Table) cutName(n *Inode, key Place) {
	n.names = slices.DeleteFunc(n.names, func(k Place) bool { return k == key })
	if len(n.names) == 0 {
		n.last = key
		t.fds.change(n, func() { n.named = false })
	}
}

// AddName notes a new name of n, after BACKING has made the name.
func (n *Inode) AddName(at Place) {
	at.Dir.Renames.Add(1)
	n.table.mu.Lock()
	defer n.table.unlock()
	n.table.setName(at, n)
}

// Removed notes that the name at key was removed through the mount. The name counts among the lost
// ones of its inode.
func (t *Table) Removed(key Place) {
	key.Dir.Renames.Add(1)
	t.takeName(key, func(n *Inode) { t.lose(n, key) })
}

// FoundGone notes that other hands took the name at key in BACKING.
func (t *Table) FoundGone(key Place) {
	t.takeName(key, func(n *Inode) { t.loseToOthers(n, key) })
}

// takeName removes the name at key from the table. lose notes the loss for the inode of that name.
func (t *Table) takeName(key Place, lose func(*Inode)) {
	t.mu.Lock()
	if n := t.byName[key]; n != nil {
		lose(n)
	}
	dead := t.drop(key)
	t.unlock()
	closeAll(dead)
}

func (t *Table) drop(key Place) (dead []*Inode) {
	n := t.byName[key]
	if n == nil {
		return nil
	}
	delete(t.byName, key)
	t.cutName(n, key)
	return t.dropRef(key.Dir, nil)
}

// RenameName notes a rename, after BACKING has renamed. exchange: the inode of the new name gets the
// old name.
func (t *Table) RenameName(from, to Place, exchange bool) {
	from.Dir.Renames.Add(1)
	to.Dir.Renames.Add(1)
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

// Names are the known names of n. Of an inode without known names, last is the name lost last.
func (n *Inode) Names() (names []Place, last Place) {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	return slices.Clone(n.names), n.last
}

// Key is the identity of n's backing inode; of several, the one of n's names.
func (n *Inode) Key() backing.Key {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	return n.key
}

// isInode reports whether fd leads to n's backing inode.
func (n *Inode) isInode(fd int) bool {
	t := n.table
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	b := t.BirthOf(fd)
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.key == backing.KeyOf(&st) && n.birth == b && n.Kind == st.Mode&unix.S_IFMT
}

// leadTo has the names of n lead to another backing inode. The former key stands for n no more.
func (n *Inode) leadTo(key backing.Key, b backing.Birth) {
	t := n.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	n.key, n.birth = key, b
	t.byKey[key] = n
}

// Visit counts a lookup of the inode with an id, and returns the inode, or nil if there is none.
func (t *Table) Visit(id uint64) *Inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n != nil {
		n.lookups++
	}
	return n
}

// Called is the inode that was last known by a name, or nil.
func (t *Table) Called(at Place) *Inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byName[at]
}

// Ref keeps n while a handle is open, until Unref.
func (n *Inode) Ref() {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	n.refs++
}

// Unref takes back a Ref. Neither n.Mu nor a lock of the table is held.
func (n *Inode) Unref() {
	n.table.mu.Lock()
	dead := n.table.dropRef(n, nil)
	n.table.mu.Unlock()
	closeAll(dead)
}

// Forget takes back lookups counted by Enter and Visit. Neither Mu of an inode nor a lock of the
// table is held.
func (t *Table) Forget(id, lookups uint64) {
	t.mu.Lock()
	n := t.byID[id]
	if n == nil || id == RootID {
		t.mu.Unlock()
		return
	}
	n.lookups -= min(lookups, n.lookups)
	dead := t.reap(n, nil)
	t.mu.Unlock()
	closeAll(dead)
}

func (t *Table) dropRef(n *Inode, dead []*Inode) []*Inode {
	n.refs--
	return t.reap(n, dead)
}

// reap removes n after the last lookup and reference went, and then directories that only the names
// of n kept. The caller closes dead after unlocking mu, which is held.
func (t *Table) reap(n *Inode, dead []*Inode) []*Inode {
	if n.lookups > 0 || n.refs > 0 || n.gone {
		return dead
	}
	n.gone = true
	if t.byID[n.ID] == n {
		delete(t.byID, n.ID)
	}
	if t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	dead = append(dead, n)
	for _, key := range n.names {
		delete(t.byName, key)
		dead = t.dropRef(key.Dir, dead)
	}
	n.names = nil
	return dead
}

func closeAll(nodes []*Inode) error {
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.close())
	}
	return errors.Join(errs...)
}

// Close ends all inodes. No other method is called any more.
func (t *Table) Close() error {
	t.mu.Lock()
	var all []*Inode
	for _, n := range t.byID {
		n.gone = true
		all = append(all, n)
	}
	clear(t.byID)
	clear(t.byKey)
	clear(t.byName)
	t.mu.Unlock()
	err := closeAll(all)
	t.fds.closing.Wait()
	return err
}

// Counts are the sizes of a table.
type Counts struct {
	Inodes, Names, Keys int
	Descriptors         int    // open O_PATH descriptors of inodes
	Made                uint64 // inodes so far
}

// Count counts the table's entries.
func (t *Table) Count() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fds.mu.Lock()
	defer t.fds.mu.Unlock()
	return Counts{len(t.byID), len(t.byName), len(t.byKey), t.fds.open, t.last}
}
