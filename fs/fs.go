// Package fs is the filesystem: inodes, handles and the FUSE operations over a datastore.
package fs

import (
	"context"
	"log/slog"

	"github.com/hanwen/go-fuse/v2/fuse"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/keys"
)

// Unencrypted is what happens to cleartext under a name whose class is encrypted.
type Unencrypted uint8

const (
	Deny Unencrypted = iota
	Read
	Write
)

// Config of a filesystem. Store and Keys stay the caller's.
type Config struct {
	Store       *datastore.Store // open, exclusive, trusted
	Keys        *keys.Cache
	Unencrypted Unencrypted
	ReadOnly    bool
	Log         *slog.Logger
}

// FS is a datastore served as a filesystem.
type FS struct{}

// New prepares the filesystem: temporaries of a crash of this host are removed.
func New(c Config) (*FS, error) { panic("fs: not built yet") }

// Raw is the filesystem as FUSE operations, for fs/transport.
func (f *FS) Raw() fuse.RawFileSystem { panic("fs: not built yet") }

// Stats are counts since the mount.
type Stats struct {
	OpenFiles     int64  `json:"open_files"`     // open handles
	OpenEncrypted int64  `json:"open_encrypted"` // inodes whose DEK is held
	ReadOps       uint64 `json:"read_ops"`
	ReadBytes     uint64 `json:"read_bytes"`
	WriteOps      uint64 `json:"write_ops"`
	WriteBytes    uint64 `json:"write_bytes"`
	SyncOps       uint64 `json:"sync_ops"`
	Conversions   uint64 `json:"conversions"`
	NoKey         uint64 `json:"no_key"`         // opens refused with ENOKEY
	Denied        uint64 `json:"denied"`         // cleartext under an encrypted name
	Damaged       uint64 `json:"damaged"`        // damage met
	BackingErrors uint64 `json:"backing_errors"` // EIO, ENOSPC, … passed on
}

// Stats gives the counts; cheap.
func (f *FS) Stats() Stats { panic("fs: not built yet") }

// Census counts the datastore's files by form and by what is wrong.
type Census struct {
	Encrypted   int64            `json:"encrypted"`
	Clear       int64            `json:"clear"`
	Empty       int64            `json:"empty"`       // no form yet
	Unencrypted int64            `json:"unencrypted"` // cleartext where the class says encrypt
	Damaged     int64            `json:"damaged"`
	Unsynced    int64            `json:"unsynced"` // header slots differ
	Directories int64            `json:"directories"`
	Other       int64            `json:"other"`    // symbolic links, devices, …
	ByClass     map[string]int64 `json:"by_class"` // by the rule's words: "disks", "logs", …
}

// TakeCensus walks the datastore until done or ctx ends. each, if not nil, is called for
// every regular file with its path below BACKING, form or what is wrong, and rule.
func (f *FS) TakeCensus(ctx context.Context, each func(path, form, rule string)) (Census, error) {
	panic("fs: not built yet")
}

// Close releases every inode after the transport has ended; idempotent.
func (f *FS) Close() error { panic("fs: not built yet") }
