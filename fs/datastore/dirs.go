package datastore

import (
	"fmt"
	"os"
	"path/filepath"
)

const program = "vmcryptfs"

// ConfigDir is where configuration is read: /etc/vmcryptfs, or for another user than
// root $XDG_CONFIG_HOME/vmcryptfs or ~/.config/vmcryptfs. Like its sisters it makes
// no directory.
func ConfigDir() (string, error) { return configDir(os.Geteuid()) }

// StateDir is where this host remembers datastores: /var/lib/vmcryptfs, or
// $XDG_STATE_HOME/vmcryptfs or ~/.local/state/vmcryptfs.
func StateDir() (string, error) { return stateDir(os.Geteuid()) }

// RunDir is where control sockets are: /run/vmcryptfs, or $XDG_RUNTIME_DIR/vmcryptfs;
// without that, as the XDG specification lets us choose, a directory of the same
// user in StateDir.
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

// hostDir is root's directory, or the one below the XDG variable, or below home. The
// XDG specification has relative paths in its variables ignored.
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
