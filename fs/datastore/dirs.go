package datastore

import (
	"fmt"
	"os"
	"path/filepath"
)

const program = "vmcryptfs"

// ConfigDir returns the directory of the configuration: /etc/vmcryptfs, or for a user other than
// root $XDG_CONFIG_HOME/vmcryptfs or ~/.config/vmcryptfs. ConfigDir, StateDir and RunDir make no
// directory.
func ConfigDir() (string, error) { return configDir(os.Geteuid()) }

// StateDir returns the directory of this host's memory of datastores: /var/lib/vmcryptfs, or for
// a user other than root $XDG_STATE_HOME/vmcryptfs or ~/.local/state/vmcryptfs.
func StateDir() (string, error) { return stateDir(os.Geteuid()) }

// RunDir returns the directory of control sockets: /run/vmcryptfs, or for a user other than root
// $XDG_RUNTIME_DIR/vmcryptfs; without the variable a directory of the same user in StateDir,
// which the XDG specification allows.
func RunDir() (string, error) { return runDir(os.Geteuid()) }

func configDir(uid int) (string, error) { return hostDir(uid, "/etc", "XDG_CONFIG_HOME", ".config") }

func stateDir(uid int) (string, error) {
	return hostDir(uid, "/var/lib", "XDG_STATE_HOME", ".local/state")
}

func runDir(uid int) (string, error) {
	if uid == 0 {
		return filepath.Join("/run", program), nil
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, program), nil
	}
	state, err := stateDir(uid)
	if err != nil {
		return "", err
	}
	return filepath.Join(state, "run"), nil
}

// hostDir returns root's directory, or for other users the one below the XDG variable, or below
// home. By the XDG specification, relative paths in XDG variables are ignored.
func hostDir(uid int, root, variable, home string) (string, error) {
	if uid == 0 {
		return filepath.Join(root, program), nil
	}
	if dir := os.Getenv(variable); filepath.IsAbs(dir) {
		return filepath.Join(dir, program), nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("neither $%s nor the home directory of user %d is known: %w", variable, uid, err)
	}
	return filepath.Join(user, home, program), nil
}
