package fs

import "time"

// believed are the names that other hands took from a node, and by which the kernel may still
// know the node. RENAME of such a name makes the kernel believe the new one; so the new name
// counts for that node too, as a lost one (follow). Guarded by table.mu.
type believed struct {
	by    map[nameKey]map[believer]time.Time // until when
	count int                                // of believers, over all names
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

func (n *inode) believer() believer { return believer{n.id, n.life} }

// loseToOthers notes that other hands took the name at key from n. t.mu is held.
func (t *table) loseToOthers(n *inode, key nameKey) {
	if n.isRegular() {
		t.lose(n, key)
		t.believed.add(key, n.believer(), t.now())
	}
}

func (b *believed) add(key nameKey, x believer, now time.Time) {
	if now.Sub(b.swept) >= lostFor {
		b.sweep(now)
	}
	if _, there := b.by[key][x]; !there {
		if b.count >= mostBelieved {
			b.full = now.Add(lostFor)
			return
		}
		b.count++
	}
	if b.by[key] == nil {
		b.by[key] = make(map[believer]time.Time)
	}
	b.by[key][x] = now.Add(lostFor)
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
func (t *table) follow(from, to nameKey) {
	now := t.now()
	for x, until := range t.believed.by[from] {
		if n := t.byID[x.id]; n != nil && n.life == x.life && until.After(now) {
			t.loseToOthers(n, to)
		}
	}
}

// overfull tells if the kernel may know nodes by names that believed had no room for.
func (t *table) overfull() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.believed.full.After(t.now())
}
