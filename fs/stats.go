package fs

import (
	"sync/atomic"

	"vmcryptfs/fs/backing"
)

// Stats are counts since the mount, but for the first two, which are counts of now.
type Stats struct {
	OpenFiles     int64  `json:"open_files"`     // open handles
	OpenEncrypted int64  `json:"open_encrypted"` // inodes with a DEK in memory
	ReadOps       uint64 `json:"read_ops"`
	ReadBytes     uint64 `json:"read_bytes"`
	WriteOps      uint64 `json:"write_ops"`
	WriteBytes    uint64 `json:"write_bytes"`
	SyncOps       uint64 `json:"sync_ops"`
	Conversions   uint64 `json:"conversions"`
	NoKey         uint64 `json:"no_key"`         // operations refused with ENOKEY
	Denied        uint64 `json:"denied"`         // opens of cleartext under an encrypted name, refused
	Damaged       uint64 `json:"damaged"`        // times that damage was met
	NewerVersion  uint64 `json:"newer_version"`  // times that a file of a newer version was met
	BackingErrors uint64 `json:"backing_errors"` // EIO, ENOSPC, … passed on
}

// counters are the counts behind Stats. Safe for concurrent use.
type counters struct {
	openEncrypted                            atomic.Int64
	readOps, readBytes, writeOps, writeBytes atomic.Uint64
	syncOps, conversions                     atomic.Uint64
	noKey, denied, damaged, backingErrors    atomic.Uint64
	newerVersion                             atomic.Uint64
}

func (c *counters) opened(f backing.Form, n int64) {
	if f == backing.Encrypted {
		c.openEncrypted.Add(n)
	}
}

func (c *counters) read(n int) {
	c.readOps.Add(1)
	c.readBytes.Add(uint64(n))
}

func (c *counters) wrote(n int) {
	c.writeOps.Add(1)
	c.writeBytes.Add(uint64(n))
}

// Stats gives the counts; cheap. Safe for concurrent use.
func (f *FS) Stats() Stats {
	c := &f.counts
	return Stats{
		OpenFiles:     int64(f.handles.count()),
		OpenEncrypted: c.openEncrypted.Load(),
		ReadOps:       c.readOps.Load(),
		ReadBytes:     c.readBytes.Load(),
		WriteOps:      c.writeOps.Load(),
		WriteBytes:    c.writeBytes.Load(),
		SyncOps:       c.syncOps.Load(),
		Conversions:   c.conversions.Load(),
		NoKey:         c.noKey.Load(),
		Denied:        c.denied.Load(),
		Damaged:       c.damaged.Load(),
		NewerVersion:  c.newerVersion.Load(),
		BackingErrors: c.backingErrors.Load(),
	}
}
