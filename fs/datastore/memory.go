package datastore

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

const (
	// memoryName is the file in the state directory.
	memoryName = "datastores.toml"
	// maxMemory bounds the memory in bytes: some 50,000 datastores.
	maxMemory = 16 << 20
)

// location is the location of a BACKING: by the host's path, and by the file system's identity.
type location struct {
	path  string // quoted unless UTF-8
	fs    string // statfs f_fsid, or the device where there is none
	inode string
}

// locationOf asks the kernel about the open directory at path.
func locationOf(path string, fd int) (location, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return location{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return location{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	id := fmt.Sprintf("fsid:%08x%08x", uint32(fs.Fsid.Val[0]), uint32(fs.Fsid.Val[1]))
	if fs.Fsid.Val == [2]int32{} {
		id = fmt.Sprintf("dev:%x", st.Dev)
	}
	if !utf8.ValidString(path) { // the memory would not be UTF-8 either, and this host could no longer read the memory
		path = strconv.Quote(path) // unlike every other path: others begin with a slash
	}
	return location{path: path, fs: id, inode: fmt.Sprint(st.Ino)}, nil
}

// record is this host's memory of one verified datastore.
type record struct {
	Path     string `toml:"path"`
	FS       string `toml:"fs"`
	Inode    string `toml:"inode"`
	ID       string `toml:"id"`
	Provider string `toml:"provider"`
	KEK      string `toml:"kek"`
	Check    string `toml:"check"` // key check value, hexadecimal
	Serial   uint64 `toml:"serial"`
}

// newRecord makes the record of verified settings, with the check value of their KEK.
func newRecord(p location, s *layout.Settings, check [16]byte) record {
	return record{
		Path: p.path, FS: p.fs, Inode: p.inode,
		ID: s.ID.String(), Provider: s.Provider, KEK: s.KEK,
		Check: hex.EncodeToString(check[:]), Serial: s.Serial,
	}
}

// kek returns the remembered KEK, with its check value.
func (r *record) kek() (keys.Ref, error) {
	var check [16]byte
	b, err := hex.DecodeString(r.Check)
	if err != nil || len(b) != len(check) {
		return keys.Ref{}, fmt.Errorf("datastore %s: check is no 32 hexadecimal digits", r.Path)
	}
	copy(check[:], b)
	return keys.Ref{Provider: r.Provider, ID: r.KEK, Check: &check}, nil
}

// at reports whether r is of a datastore at p. The path decides, so another file system in the
// datastore's place does not count as a new datastore. A datastore moved, or on a file system
// mounted elsewhere, is recognised by file system, directory inode and id. (The id is compared
// because inode numbers are used again.)
func (r *record) at(p location, id layout.FileID) bool {
	return r.Path == p.path || r.FS == p.fs && r.Inode == p.inode && r.ID == id.String()
}

// recall returns this host's record of the datastore id at p, or nil. A record of the path comes
// before a record of the directory.
func (h *Host) recall(p location, id layout.FileID) (*record, error) {
	all, err := h.records()
	return find(all, p, id), err
}

func find(all []record, p location, id layout.FileID) *record {
	var found *record
	for i := range all {
		if r := &all[i]; r.Path == p.path {
			return r
		} else if r.at(p, id) {
			found = r
		}
	}
	return found
}

// remember replaces the record of r's datastore, if check allows the present record (nil: none),
// perhaps just written by another process.
func (h *Host) remember(r record, p location, id layout.FileID, check func(*record) error) error {
	dir, unlock, err := h.lockState()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := h.readMemory(dir)
	if err != nil {
		return err
	}
	old := find(all, p, id)
	if err := check(old); err != nil {
		return err
	}
	if old != nil && *old == r {
		return nil
	}
	all = slices.DeleteFunc(all, func(o record) bool { return o.at(p, id) })
	return h.writeMemory(dir, append(all, r))
}

// memory is the file.
type memory struct {
	Datastore []record `toml:"datastore"`
}

func (h *Host) readMemory(dir int) ([]record, error) {
	b, err := readOwn(dir, memoryName, maxMemory)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err == nil {
		var all []record
		if all, err = parseMemory(b); err == nil {
			return all, nil
		}
	}
	return nil, fmt.Errorf("memory of datastores %s: %w", filepath.Join(h.state, memoryName), err)
}

// parseMemory parses the file. An unknown key is an error: dropping a newer version's key would
// be forgetting.
func parseMemory(b []byte) ([]record, error) {
	var m memory
	meta, err := toml.Decode(string(b), &m)
	if err != nil {
		return nil, err
	}
	if extra := meta.Undecoded(); len(extra) > 0 {
		return nil, fmt.Errorf("unknown key %q", extra[0].String())
	}
	for _, r := range m.Datastore {
		if r.Serial > math.MaxInt64 { // how the library reads a negative number
			return nil, fmt.Errorf("serial of datastore %q is not between 0 and 2^63 - 1", r.Path)
		}
	}
	return m.Datastore, nil
}

// formatMemory returns the text for parseMemory.
func formatMemory(all []record) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# What this host knows of its vmcryptfs datastores. Written by vmcryptfs.\n")
	if err := toml.NewEncoder(&b).Encode(memory{all}); err != nil {
		return nil, err
	}
	if b.Len() > maxMemory {
		return nil, fmt.Errorf("more than %d bytes", maxMemory)
	}
	return b.Bytes(), nil
}

func (h *Host) writeMemory(dir int, all []record) error {
	b, err := formatMemory(all)
	if err == nil {
		err = byname.Replace(dir, memoryName, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("memory of datastores %s: %w", filepath.Join(h.state, memoryName), err)
	}
	return nil
}
