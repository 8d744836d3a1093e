package faultfile

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// state is the content of a disk.
type state struct {
	files []*image
	names map[string]int
}

func (s state) clone() state {
	c := state{names: maps.Clone(s.names)}
	for _, f := range s.files {
		c.files = append(c.files, f.clone())
	}
	return c
}

// apply does a step whole.
func (s *state) apply(st Step) {
	switch st.Op {
	case Write, Truncate, Fallocate:
		s.files[st.File].apply(st)
	case Link:
		delete(s.names, st.From)
		s.names[st.Name] = st.File
	case Remove:
		delete(s.names, st.Name)
	case Exchange:
		s.names[st.Name], s.names[st.From] = s.names[st.From], s.names[st.Name]
	}
}

// image is the content of a file: missing sectors are holes. Sectors past size exist only during
// the computation of a power loss.
type image struct {
	sectors map[int64]*content
	size    int64
}

// content is a sector, shared by clones until one clone changes the sector.
type content struct {
	bytes [sector]byte
	owner *image // the only image allowed to change the sector
}

func newImage() *image { return &image{sectors: map[int64]*content{}} }

func (m *image) clone() *image {
	for _, s := range m.sectors {
		s.owner = nil
	}
	return &image{sectors: maps.Clone(m.sectors), size: m.size}
}

// own returns a sector, not a hole, for a change.
func (m *image) own(i int64) *content {
	s := m.sectors[i]
	switch {
	case s == nil:
		s = &content{owner: m}
	case s.owner != m:
		s = &content{bytes: s.bytes, owner: m}
	default:
		return s
	}
	m.sectors[i] = s
	return s
}

func (m *image) apply(st Step) {
	switch st.Op {
	case Write:
		m.write(st.Data, st.Off)
	case Truncate:
		m.truncate(st.Off)
	case Fallocate:
		m.fallocate(st.Mode, st.Off, st.Len)
	}
}

func (m *image) read(p []byte, off int64) int {
	if off >= m.size {
		return 0
	}
	p = p[:min(int64(len(p)), m.size-off)]
	for done := 0; done < len(p); {
		at := off + int64(done)
		k := min(len(p)-done, int(sector-at%sector))
		if s := m.sectors[at/sector]; s != nil {
			copy(p[done:done+k], s.bytes[at%sector:])
		} else {
			clear(p[done : done+k])
		}
		done += k
	}
	return len(p)
}

func (m *image) write(p []byte, off int64) {
	if len(p) > 0 {
		m.size = max(m.size, off+int64(len(p)))
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		done += copy(m.own(at / sector).bytes[at%sector:], p[done:])
	}
}

func (m *image) truncate(size int64) {
	if size < m.size {
		m.zero(size, 1<<62)
	}
	m.size = size
}

// bring copies a sector from from.
func (m *image) bring(from *image, i int64) {
	if s := from.sectors[i]; s != nil {
		s.owner = nil
		m.sectors[i] = s
	} else {
		delete(m.sectors, i)
	}
}

// zero makes [from, to) zeros, holes where whole sectors are.
func (m *image) zero(from, to int64) {
	for i := range m.sectors {
		lo, hi := max(from, i*sector), min(to, (i+1)*sector)
		switch {
		case hi-lo == sector:
			delete(m.sectors, i)
		case lo < hi:
			clear(m.own(i).bytes[lo-i*sector : hi-i*sector])
		}
	}
}

func (m *image) fallocate(mode uint32, off, n int64) {
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		m.zero(off, off+n)
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		m.size = max(m.size, off+n)
	}
}

func (m *image) seek(off int64, whence int) (int64, error) {
	if off < 0 || off >= m.size {
		return 0, unix.ENXIO
	}
	data := whence == unix.SEEK_DATA
	for _, i := range slices.Sorted(maps.Keys(m.sectors)) {
		switch begin, end := i*sector, (i+1)*sector; {
		case end <= off:
		case data:
			return max(begin, off), nil
		case begin > off:
			return off, nil
		default:
			off = end
		}
	}
	if data {
		return 0, unix.ENXIO
	}
	return min(off, m.size), nil
}
