package devkms

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gemalto/kmip-go/kmip20"

	"vmcryptfs/byname"
	"vmcryptfs/keys"
)

// A store keeps keys in a directory, one file for each: a line of JSON with the attributes, then
// the bytes of the key. Memory holds the attributes too, never the bytes. A change is on disk
// before the change counts. Safe for concurrent use.
type store struct {
	dir string

	mu      sync.Mutex         // guards objects, and held over the writing of a file
	objects map[string]*object // by identifier; the objects themselves never change
}

const keySuffix = ".key"

// openStore reads the attributes of all keys in dir, and makes a missing dir.
func openStore(dir string) (*store, error) {
	opened, err := byname.MakePrivateDir(dir, 0o700)
	if err != nil {
		return nil, err
	}
	opened.Close()
	s := &store{dir: dir, objects: map[string]*object{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), keySuffix) {
			continue // left by a crash while a file was written
		}
		o, material, err := s.read(strings.TrimSuffix(e.Name(), keySuffix))
		if err != nil {
			return nil, err
		}
		clear(material)
		s.objects[o.ID] = o
	}
	return s, nil
}

func (s *store) path(id string) string { return filepath.Join(s.dir, id+keySuffix) }

// read is the file of a key; the caller wipes the material.
func (s *store) read(id string) (*object, []byte, error) {
	content, err := os.ReadFile(s.path(id))
	if err != nil {
		return nil, nil, err
	}
	line, material, ok := bytes.Cut(content, []byte("\n"))
	o := &object{}
	if !ok || json.Unmarshal(line, o) != nil || o.ID != id {
		clear(content)
		return nil, nil, fmt.Errorf("%s: not a key file of the development KMS", s.path(id))
	}
	if want := int(o.Bits / 8); !o.destroyed() && len(material) != want {
		clear(content)
		return nil, nil, fmt.Errorf("%s: %d bytes of key, not %d", s.path(id), len(material), want)
	}
	return o, material, nil
}

func (s *store) write(o *object, material []byte) error {
	line, err := json.Marshal(o)
	if err != nil {
		return err
	}
	content := make([]byte, 0, len(line)+1+len(material))
	content = append(append(append(content, line...), '\n'), material...)
	defer clear(content)
	return writeFile(s.path(o.ID), content, 0o600)
}

// add keeps a new key under a fresh identifier. Names are unique among the keys not destroyed.
func (s *store) add(o *object, material []byte, now time.Time) (id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range o.Names {
		for _, other := range s.objects {
			if !other.destroyed() && other.named(name) {
				return "", failf(kmip20.ResultReasonNonUniqueNameAttribute, "another key has the name %q", name)
			}
		}
	}
	o.ID, o.Initial, o.Changed = keys.NewFileID().String(), now, now
	if err := s.write(o, material); err != nil {
		return "", err
	}
	s.objects[o.ID] = o
	return o.ID, nil
}

// find returns the object with the identifier; the caller must not change the object.
func (s *store) find(id string) (*object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[id]
	if !ok {
		return nil, failf(kmip20.ResultReasonObjectNotFound, "no key has the identifier %q", id)
	}
	return o, nil
}

// material returns a copy of a key's bytes; the caller wipes the copy.
func (s *store) material(id string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, material, err := s.read(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, failf(kmip20.ResultReasonObjectNotFound, "the file of key %q is gone", id)
	case err != nil:
		return nil, err
	case o.destroyed(): // destroyed since find
		return nil, failf(kmip20.ResultReasonObjectDestroyed, "the key was destroyed")
	}
	return material, nil
}

// change changes a key's state. The file of a destroyed key no longer holds the key's bytes.
func (s *store) change(id string, change change, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[id]
	if !ok {
		return failf(kmip20.ResultReasonObjectNotFound, "no key has the identifier %q", id)
	}
	next := o.clone()
	if err := change(next, now); err != nil {
		return err
	}
	next.Changed = now
	_, material, err := s.read(id)
	if err != nil {
		return err
	}
	defer clear(material)
	if next.destroyed() {
		clear(material)
		material = nil
	}
	if err := s.write(next, material); err != nil {
		return err
	}
	s.objects[id] = next
	return nil
}

// all are the objects, the oldest first.
func (s *store) all() []*object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.objects), cmpObjects)
}

func cmpObjects(a, b *object) int {
	if c := a.Initial.Compare(b.Initial); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}
