package main

import (
	"os"
	"path/filepath"

	"vmcryptfs/fs/datastore"
)

// configFile is the kms.toml to read when none is named.
func configFile() (string, error) {
	dir, err := datastore.ConfigDir()
	return filepath.Join(dir, "kms.toml"), err
}

// devkmsDir is where --dev keeps its keys.
func devkmsDir() (string, error) {
	if dir := os.Getenv("VMCRYPTFS_DEVKMS"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := datastore.StateDir()
	return filepath.Join(dir, "devkms"), err
}

// logDir holds the logs of daemons. XDG has state and logs in one place.
func logDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/log/vmcryptfs", nil
	}
	return datastore.StateDir()
}
