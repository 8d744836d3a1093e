package inode

import "time"

// believed are the names that other hands took from a node, and by which the kernel may still
// know the node. RENAME of such a name makes the kernel believe the new one; so the new name
// counts for that node too, as a lost one (follow). Guarded by table.mu.
type believed struct {
	by    map[Place]map[believer]time.Time // until when
	count int                              // of believers, over all names
	swept time.Time
	// full: until then there may be more than by has room for.
	full time.Time
}

// mostBelieved bounds the believers. For lostFor after there were more, no file is renamed to
// a name of another class (EXDEV: it can be copied).
const mostBelieved = 4096

// believer is a node id as long as the kernel does not forget it. BACKING gives the number of
// a file that is gone to another, which is then another believer.
type believer struct{ id, life uint64 }

func (n *Inode) believer() believer { return believer{n.ID, n.life} }

// loseToOthers notes that other hands took the name at key from n. t.mu is held.
func (t *Table) loseToOthers(n *Inode, key Place) {
	if n.IsRegular() {
		t.lose(n, key)
		t.believed.add(key, n.believer(), t.Now())
	}
}

func (b *believed) add(key Place, x believer, now time.Time) {
	if now.Sub(b.swept) >= LostFor {
		b.sweep(now)
	}
	if _, there := b.by[key][x]; !there {
		if b.count >= mostBelieved {
			b.full = now.Add(LostFor)
			return
		}
		b.count++
	}
	if b.by[key] == nil {
		b.by[key] = make(map[believer]time.Time)
	}
	b.by[key][x] = now.Add(LostFor)
}

// sweep forgets what counts no more.
func (b *believed) sweep(now time.Time) {
	b.swept = now
	for key, all := range b.by {
		for x, until := range all {
			if !until.After(now) {
				delete(all, x)
				b.count--
			}
		}
		if len(all) == 0 {
			delete(b.by, key)
		}
	}
}

// follow has the nodes that the kernel may still know by from lose to as well, which a rename
// makes of it. t.mu is held.
func (t *Table) follow(from, to Place) {
	now := t.Now()
	for x, until := range t.believed.by[from] {
		if n := t.byID[x.id]; n != nil && n.life == x.life && until.After(now) {
			t.loseToOthers(n, to)
		}
	}
}

// Overfull tells if the kernel may know nodes by names that believed had no room for.
func (t *Table) Overfull() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.believed.full.After(t.Now())
}
