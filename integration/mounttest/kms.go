package mounttest

import "path/filepath"

// KMS is where a datastore's keys come from.
type KMS interface {
	Env() []string   // for every command
	Flags() []string // for init, mount and export
	Config() string  // a kms.toml for reaching the server
}

// Embedded is the development KMS inside the daemon (mount --dev), with the keys in Dir.
type Embedded struct{ Dir string }

// Env names the directory of the keys.
func (e Embedded) Env() []string { return []string{"VMCRYPTFS_DEVKMS=" + e.Dir} }

// Flags is --dev.
func (e Embedded) Flags() []string { return []string{"--dev"} }

// Config returns the server's kms.toml for clients.
func (e Embedded) Config() string { return filepath.Join(e.Dir, "kms.toml") }
