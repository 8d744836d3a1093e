package daemon

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

// DevKMSDir gives the directory where the development KMS keeps its keys: $VMCRYPTFS_DEVKMS, or a
// directory of this user.
func DevKMSDir() (string, error) {
	if dir := os.Getenv("VMCRYPTFS_DEVKMS"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := datastore.StateDir()
	return filepath.Join(dir, "devkms"), err
}

// LogDir gives the directory for the logs of daemons. XDG has state and logs in one place.
func LogDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/log/vmcryptfs", nil
	}
	return datastore.StateDir()
}
