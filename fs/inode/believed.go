package inode

import "time"

// believed are the names taken from an inode by other hands, by which the kernel may still know the
// inode. RENAME of such a name makes the kernel believe the new name; so follow counts the new name
// among the inode's lost ones. Guarded by Table.mu.
type believed struct {
	by    map[Place]map[believer]time.Time // until when each counts
	count int                              // of believers, over all names
	swept time.Time
	// Until full the kernel may believe more names than by has room for.
	full time.Time
}

// mostBelieved bounds the believers. For LostFor after the bound was met, no file is renamed to a
// name of another class (EXDEV: the caller copies the file).
const mostBelieved = 4096

// believer is a node id for as long as the kernel remembers the id. When BACKING gives the number
// of a removed file to a new one, the new file is another believer.
type believer struct{ id, life uint64 }

func (n *Inode) believer() believer { return believer{n.ID, n.life} }

// loseToOthers notes that other hands took the name at key from n. Table.mu is held.
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

// sweep removes the believers whose time is over.
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

// follow notes a rename of from to to: the inodes that the kernel may still know by from lose the
// name to, too. Table.mu is held.
func (t *Table) follow(from, to Place) {
	now := t.Now()
	for x, until := range t.believed.by[from] {
		if n := t.byID[x.id]; n != nil && n.life == x.life && until.After(now) {
			t.loseToOthers(n, to)
		}
	}
}

// Overfull reports whether the kernel may know inodes by names that believed had no room for.
func (t *Table) Overfull() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.believed.full.After(t.Now())
}
