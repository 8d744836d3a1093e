package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// system is an encrypting filesystem under measurement.
type system interface {
	name() string
	mount() error
	unmount() error
	file() string // the file for the loads
}

// place is the directory of a system.
type place struct{ dir string }

func (p place) backing() string { return filepath.Join(p.dir, "backing") }
func (p place) mnt() string     { return filepath.Join(p.dir, "mnt") }
func (p place) file() string    { return filepath.Join(p.mnt(), "bench-flat.vmdk") }

func (p place) make() error {
	return errors.Join(os.MkdirAll(p.backing(), 0o700), os.MkdirAll(p.mnt(), 0o700))
}

// vmcryptfs runs on the embedded development KMS: keys are not in the data path.
type vmcryptfs struct {
	place
	program string
}

func (*vmcryptfs) name() string { return "vmcryptfs" }

func (v *vmcryptfs) mount() error {
	if err := v.make(); err != nil {
		return err
	}
	return command([]string{"VMCRYPTFS_DEVKMS=" + filepath.Join(v.dir, "devkms")}, v.program, "mount", "--dev", v.backing(), v.mnt())
}

func (v *vmcryptfs) unmount() error { return command(nil, v.program, "umount", v.mnt()) }

// gocryptfs is Debian's package with its defaults (AES-GCM), except for a cheap password hash.
type gocryptfs struct{ place }

func (*gocryptfs) name() string { return "gocryptfs" }

func (g *gocryptfs) mount() error {
	if err := g.make(); err != nil {
		return err
	}
	password := filepath.Join(g.dir, "password")
	if err := os.WriteFile(password, []byte("benchmark\n"), 0o600); err != nil {
		return err
	}
	if err := command(nil, "gocryptfs", "-init", "-q", "-scryptn", "10", "-passfile", password, g.backing()); err != nil {
		return err
	}
	return command(nil, "gocryptfs", "-q", "-nosyslog", "-passfile", password, g.backing(), g.mnt())
}

func (g *gocryptfs) unmount() error { return command(nil, "umount", g.mnt()) }

func command(env []string, argv ...string) error {
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append(os.Environ(), env...)
	// A daemon would keep a pipe open, and this program would wait for the pipe's end.
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("%v: %w", argv, err)
	}
	return nil
}
