// Package faultfile is a disk in memory for tests: named files whose every step can be recorded,
// refused or torn. The record unfolds into the states that a kill or a power loss may leave.
//
// The model is a disk under a file system like ext4 (ordered) or XFS. Sectors of 512 bytes are
// atomic. Unsynced data may be lost sector by sector, in any combination. Lengths of one file
// change in order, independent of the file's data. Data cut off by a truncation stays away once
// the truncation has come to disk, and the zeroed rest of the block may come to disk before the
// truncation. Names change in order, independent of files.
package faultfile

import (
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
)

// sector is the unit of atomic writing in bytes.
const sector = 512

// Op is a kind of step.
type Op uint8

// The kinds of changing steps.
const (
	Write Op = iota
	Truncate
	Sync
	Fallocate
	Link // gives a file a name, replacing
	Remove
	Exchange // exchanges two names
	SyncDir
	Read // never recorded; for Fault
)

// Step is one changing call.
type Step struct {
	Op   Op
	File int    // by number, in order of creation; unused by Remove, Exchange and SyncDir
	Name string // Link, Remove, Exchange
	From string // Link: the name removed, if any; Exchange: the other name
	Off  int64  // Write, Fallocate; Truncate: the new size
	Len  int64
	Mode uint32 // Fallocate
	Data []byte // Write, when recorded
	// Durable: a Write with a sync of its range.
	Durable cryptfile.Durability
	// Lost: a Write whose Sync was refused. The written data is seen, and comes to disk by no
	// other Sync.
	Lost bool
}

// Disk is a set of files and names. The methods of a Disk and of its files may be called
// concurrently; fields are set before use.
type Disk struct {
	// Fault, if not nil, is called before each step. An error refuses the step, after the first
	// torn bytes of a Write. An errno stands for BACKING's refusal: data of a refused sync never
	// comes to disk by another sync. Any other error stands for a kill.
	Fault func(Step) (torn int64, err error)
	// Without is the set of fallocate modes (bits) unknown to this disk.
	Without uint32
	// Yield gives way to other goroutines after every 16 bytes copied, so an overlap without
	// exclusion shows.
	Yield bool

	mu     sync.Mutex
	now    state
	base   state // when recording began
	record bool
	steps  []Step
}

// File is a file of a Disk.
type File struct {
	disk   *Disk
	number int
}

var (
	_ cryptfile.Backing   = (*File)(nil)
	_ cryptfile.Refresher = (*File)(nil)
)

// New returns an empty disk.
func New() *Disk { return &Disk{now: state{names: map[string]int{}}} }

// Create makes a file with no name.
func (d *Disk) Create() *File {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now.files = append(d.now.files, newImage())
	return &File{d, len(d.now.files) - 1}
}

// Number returns f's number in the disk's order of creation.
func (f *File) Number() int { return f.number }

// File returns the file with the number, which must exist.
func (d *Disk) File(number int) *File { return &File{d, number} }

// Open returns the file with the name, or nil.
func (d *Disk) Open(name string) *File {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.now.names[name]
	if !ok {
		return nil
	}
	return &File{d, n}
}

// Link gives f the name, in place of another file.
func (d *Disk) Link(f *File, name string) error {
	return d.step(Step{Op: Link, File: f.number, Name: name})
}

// Record takes the disk's present content as synced, and starts a new record.
func (d *Disk) Record() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.base, d.record, d.steps = d.now.clone(), true, nil
}

// Steps is how many steps have been recorded.
func (d *Disk) Steps() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.steps)
}

// step does any step except reading.
func (d *Disk) step(s Step) error {
	_, err := d.write(s)
	return err
}

// write calls Fault, then does a step and records the step.
func (d *Disk) write(s Step) (int, error) {
	torn, fault := int64(0), error(nil)
	if d.Fault != nil {
		torn, fault = d.Fault(s)
	}
	if fault != nil {
		if _, refused := fault.(unix.Errno); refused && s.Op == Sync {
			d.lost(s.File)
		}
		if s.Op != Write || torn == 0 {
			return 0, fault
		}
		s.Len, s.Data = torn, s.Data[:torn]
	}
	if s.Op == Fallocate && s.Mode&d.Without != 0 {
		return 0, unix.EOPNOTSUPP
	}
	if d.Yield && s.Op == Write {
		d.writeSlowly(s)
		return int(s.Len), fault
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now.apply(s)
	if d.record {
		s.Data = append([]byte(nil), s.Data...)
		d.steps = append(d.steps, s)
	}
	return int(s.Len), fault
}

// lost marks the writes whose Sync was refused for a file, as Linux does: pages that could not be
// stored are clean from then on.
func (d *Disk) lost(file int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(d.steps) - 1; i >= 0; i-- {
		switch s := &d.steps[i]; {
		case s.File == file && s.Op == Sync:
			return
		case s.File == file && s.Op == Write:
			s.Lost = s.Durable == cryptfile.Volatile
		}
	}
}

func (d *Disk) writeSlowly(s Step) {
	for at := 0; at < len(s.Data); at += 16 {
		part := s
		part.Off, part.Data = s.Off+int64(at), s.Data[at:min(at+16, len(s.Data))]
		d.mu.Lock()
		d.now.apply(part)
		d.mu.Unlock()
		runtime.Gosched()
	}
}

// ReadAt is part of cryptfile.Backing.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	d := f.disk
	if d.Fault != nil {
		if _, err := d.Fault(Step{Op: Read, File: f.number, Off: off, Len: int64(len(p))}); err != nil {
			return 0, err
		}
	}
	if !d.Yield {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.now.files[f.number].read(p, off), nil
	}
	done := 0
	for done < len(p) {
		part := p[done:min(done+16, len(p))]
		d.mu.Lock()
		n := d.now.files[f.number].read(part, off+int64(done))
		d.mu.Unlock()
		runtime.Gosched()
		done += n
		if n < len(part) {
			break
		}
	}
	return done, nil
}

// WriteAt is part of cryptfile.Backing.
func (f *File) WriteAt(p []byte, off int64, d cryptfile.Durability) (int, error) {
	return f.disk.write(Step{Op: Write, File: f.number, Off: off, Len: int64(len(p)), Data: p, Durable: d})
}

// Truncate is part of cryptfile.Backing.
func (f *File) Truncate(size int64) error {
	return f.disk.step(Step{Op: Truncate, File: f.number, Off: size})
}

// Sync is part of cryptfile.Backing.
func (f *File) Sync(cryptfile.Durability) error {
	return f.disk.step(Step{Op: Sync, File: f.number})
}

// Refresh is part of cryptfile.Refresher: of each lost write, the first sector had come to disk;
// the rest is no longer seen.
func (f *File) Refresh(int64, int64) error {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.start().files
	for i, s := range d.steps {
		if s.File != f.number || !s.ofContent() {
			continue
		}
		if s.Lost {
			s.Len = min(s.Len, sector)
			s.Data, s.Lost, s.Durable = s.Data[:s.Len], false, cryptfile.Data
			d.steps[i] = s
		}
		now[f.number].apply(s)
	}
	if d.record {
		d.now.files[f.number] = now[f.number]
	}
	return nil
}

// Fallocate is part of cryptfile.Backing.
func (f *File) Fallocate(mode uint32, off, n int64) error {
	return f.disk.step(Step{Op: Fallocate, File: f.number, Off: off, Len: n, Mode: mode})
}

// Seek is part of cryptfile.Backing: holes are sectors never written, or punched.
func (f *File) Seek(off int64, whence int) (int64, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return f.disk.now.files[f.number].seek(off, whence)
}

// Size is part of cryptfile.Backing.
func (f *File) Size() (int64, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return f.disk.now.files[f.number].size, nil
}

// Close is part of cryptfile.Backing; the file stays on the disk.
func (f *File) Close() error { return nil }

// Dir is the disk as a directory, for conversions; a Disk is one directory.
type Dir struct{ *Disk }

var _ cryptfile.Dir = Dir{}

// CreateTemp is part of cryptfile.Dir.
func (d Dir) CreateTemp(temp string) (cryptfile.Backing, error) {
	f := d.Create()
	if err := d.Link(f, temp); err != nil {
		return nil, err
	}
	return f, nil
}

// Publish is part of cryptfile.Dir.
func (d Dir) Publish(temp, name string) error {
	f := d.Open(temp)
	if f == nil {
		return unix.ENOENT
	}
	return d.step(Step{Op: Link, File: f.number, Name: name, From: temp})
}

// Exchange exchanges two names, each of which leads to a file.
func (d Dir) Exchange(a, b string) error {
	if d.Open(a) == nil || d.Open(b) == nil {
		return unix.ENOENT
	}
	return d.step(Step{Op: Exchange, Name: a, From: b})
}

// Remove is part of cryptfile.Dir.
func (d Dir) Remove(temp string) error { return d.step(Step{Op: Remove, Name: temp}) }

// Sync is part of cryptfile.Dir.
func (d Dir) Sync() error { return d.step(Step{Op: SyncDir}) }

// String describes a step in a message.
func (s Step) String() string {
	name := [...]string{"write", "truncate", "sync", "fallocate", "link", "remove", "exchange", "syncdir", "read"}[s.Op]
	return fmt.Sprintf("%s(file %d %s off %d len %d)", name, s.File, s.Name, s.Off, s.Len)
}
