package faultfile

import (
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// block is the granule in bytes whose zeroed rest may come to disk before a truncation.
const block = 4096

// State is a disk as a crash may leave one.
type State struct {
	Disk *Disk
	// Steps is how many recorded steps had returned.
	Steps int
	// Power reports that unsynced data could be lost, beyond the end of the sequence.
	Power bool
	// What describes, for messages, how the state came about.
	What string
}

// Kills calls each with every state that a kill can leave: the recorded steps cut off after each
// step, and each write cut off after each filled sector.
func (d *Disk) Kills(each func(State)) {
	now := d.start()
	give := func(s state, steps int, what string) {
		each(State{Disk: &Disk{now: s.clone()}, Steps: steps, What: what})
	}
	for i, s := range d.steps {
		give(now, i, fmt.Sprintf("killed before step %d, %v", i, s))
		if s.Op == Write {
			for at := sector - s.Off%sector; at < s.Len; at += sector {
				torn := now.clone()
				torn.files[s.File].write(s.Data[:at], s.Off)
				give(torn, i, fmt.Sprintf("killed %d bytes into step %d, %v", at, i, s))
			}
		}
		now.apply(s)
	}
	give(now, len(d.steps), "killed after the last step")
}

// PowerLosses calls each with states that a power loss after each step can leave: tries random
// ones from a fixed seed, and the states with nothing on disk, everything on disk, lengths
// without data, and data without lengths.
func (d *Disk) PowerLosses(tries int, each func(State)) {
	for steps := range len(d.steps) + 1 {
		for try := range tries + 4 {
			rng := rand.New(rand.NewPCG(uint64(steps), uint64(try)))
			loss := loss{data: rng.Float64(), length: rng.Float64(), rng: rng}
			switch try {
			case 0:
				loss.data, loss.length = 0, 0
			case 1:
				loss.data, loss.length = 1, 1
			case 2:
				loss.data, loss.length = 0, 1
			case 3:
				loss.data, loss.length = 1, 0
			}
			each(State{
				Disk:  &Disk{now: d.lose(steps, loss)},
				Steps: steps,
				Power: true,
				What:  fmt.Sprintf("power lost after %d steps, try %d", steps, try),
			})
		}
	}
}

// Cut returns a random disk as a power loss now may leave one: with much or little of the
// unsynced data or, each once in eight times, with all or none. d itself continues.
func (d *Disk) Cut(rng *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	loss := loss{data: rng.Float64(), length: rng.Float64(), rng: rng}
	switch rng.IntN(8) {
	case 0:
		loss.data, loss.length = 0, 0
	case 1:
		loss.data, loss.length = 1, 1
	}
	left := &Disk{now: d.lose(len(d.steps), loss)}
	left.base, left.record = left.now.clone(), true
	return left
}

// loss holds the probabilities with which unsynced data comes to disk.
type loss struct {
	data   float64 // a sector
	length float64 // one more change of length or name, in order
	rng    *rand.Rand
}

func (l loss) keeps(p float64) bool { return l.rng.Float64() < p }

// start returns the content of the disk at the start of recording, with the files made since,
// empty.
func (d *Disk) start() state {
	s := d.base.clone()
	for len(s.files) < len(d.now.files) {
		s.files = append(s.files, newImage())
	}
	return s
}

// lose computes the content on disk after the first n steps.
func (d *Disk) lose(n int, l loss) state {
	s := d.start()
	for i := range s.files {
		s.files[i] = d.loseFile(i, s.files[i], n, l)
	}
	synced := lastSync(d.steps[:n], func(st Step) bool { return st.Op == SyncDir })
	kept := true
	for i, st := range d.steps[:n] {
		if st.Op == Link || st.Op == Remove || st.Op == Exchange {
			if kept = i < synced || kept && l.keeps(l.length); kept {
				s.apply(st)
			}
		}
	}
	return s
}

// loseFile computes the content on disk of one file, whose synced content is m.
func (d *Disk) loseFile(file int, m *image, n int, l loss) *image {
	synced := lastSync(d.steps[:n], func(st Step) bool { return st.Op == Sync && st.File == file })
	cache := m.clone() // the program's view
	lengths := true    // changes of length still come to disk, being in order
	for i, st := range d.steps[:n] {
		if st.File != file || !st.ofContent() {
			continue
		}
		done := i < synced || st.Durable != 0
		data := l.data
		if done && !st.Lost {
			data = 1
		}
		if st.changes(cache.size) {
			lengths = lengths && (done || d.lengthSynced(file, i, n) || l.keeps(l.length))
		}
		shrinks := st.Op == Truncate && st.Off < cache.size
		cache.apply(st)
		switch st.Op {
		case Write:
			for at := st.Off / sector; at*sector < st.Off+st.Len; at++ {
				if l.keeps(data) {
					m.bring(cache, at)
				}
			}
			if lengths {
				m.size = max(m.size, st.Off+st.Len)
			}
		case Truncate:
			if lengths {
				m.truncate(st.Off)
			} else if shrinks && l.keeps(l.length) {
				for at := st.Off / sector; at*sector < (st.Off+block-1)/block*block; at++ {
					m.bring(cache, at)
				}
			}
		case Fallocate:
			if l.keeps(data) {
				m.fallocate(st.Mode|unix.FALLOC_FL_KEEP_SIZE, st.Off, st.Len)
				// Part of a sector is zeroed in the page cache, with whatever was written there.
				m.bring(cache, st.Off/sector)
				m.bring(cache, (st.Off+st.Len-1)/sector)
			}
			if lengths {
				m.fallocate(st.Mode&unix.FALLOC_FL_KEEP_SIZE, st.Off, st.Len)
			}
		}
	}
	m.zero(m.size, 1<<62) // data whose length was lost
	return m
}

// lengthSynced reports whether a durable write after step i brings the step's length to disk.
func (d *Disk) lengthSynced(file, i, n int) bool {
	for _, st := range d.steps[i:n] {
		if st.Op == Write && st.File == file && st.Durable != 0 {
			return true
		}
	}
	return false
}

// changes reports whether a step changes the length of its file, or may have.
func (s Step) changes(length int64) bool {
	grows := s.Op == Write || s.Op == Fallocate && s.Mode&unix.FALLOC_FL_KEEP_SIZE == 0
	return s.Op == Truncate || grows && s.Off+s.Len > length
}

// ofContent reports whether a step changes the content of a file.
func (s Step) ofContent() bool { return s.Op == Write || s.Op == Truncate || s.Op == Fallocate }

// lastSync returns the number of steps before the last sync among steps, or 0.
func lastSync(steps []Step, is func(Step) bool) int {
	for i := len(steps) - 1; i >= 0; i-- {
		if is(steps[i]) {
			return i
		}
	}
	return 0
}
