package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/move"
	"vmcryptfs/layout"
)

// moved is a Dir by paths: nobody else is at work in a script's directory.
var _ move.Dir = (*moved)(nil)

func (m *moved) companion() string {
	return filepath.Join(filepath.Dir(m.name), layout.MoveName(m.id))
}

func (m *moved) temporary() string { return m.name + ".temporary" }

func (m *moved) create(name string) (cryptfile.Backing, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return cryptfile.NewOSFile(fd), nil
}

// Create, and the methods below, are move.Dir's.
func (m *moved) Create() (cryptfile.Backing, error)          { return m.create(m.temporary()) }
func (m *moved) Discard() error                              { return os.Remove(m.temporary()) }
func (m *moved) CreateCompanion() (cryptfile.Backing, error) { return m.create(m.companion()) }
func (m *moved) CanExchange() bool                           { return false }
func (m *moved) LinkMade() error                             { return unix.ENOTSUP }
func (m *moved) Exchange() error                             { return unix.ENOTSUP }
func (m *moved) LinkF() error                                { return os.Link(m.name, m.companion()) }
func (m *moved) ReplaceF() error                             { return os.Rename(m.temporary(), m.name) }
func (m *moved) RemoveCompanion() error                      { return os.Remove(m.companion()) }
func (m *moved) RestoreCompanion() error                     { return os.Rename(m.companion(), m.name) }

func (m *moved) Sync() error {
	d, err := os.Open(filepath.Dir(m.name))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
