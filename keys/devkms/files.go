package devkms

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/keys/kmip"
)

// writeFile replaces a file in a private directory (byname.Replace). No two callers have the
// same path at one time.
func writeFile(path string, content []byte, mode uint32) error {
	dir, err := byname.PrivateDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return byname.Replace(int(dir.Fd()), filepath.Base(path), content, mode)
}

// ErrRunning reports that another server of this host runs on the directory; clients find the
// other server by its kms.toml.
var ErrRunning = errors.New("another development KMS runs on this directory")

// lockDir ensures that one server at a time writes to a directory. The lock goes with the file,
// and so with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrRunning
		}
		return nil, err
	}
	return f, nil
}

// writeConfig writes the kms.toml for clients.
func (s *Server) writeConfig() error {
	text := fmt.Sprintf(`# Written by the development KMS: its keys lie on this host in clear.
[provider.%s]
servers = [%q]
ca   = %q
cert = %q
key  = %q
`, ProviderName, s.addr, filepath.Join(s.dir, caFile), filepath.Join(s.dir, clientFile), filepath.Join(s.dir, clientKeyFile))
	return writeFile(s.ConfigPath(), []byte(text), 0o600)
}

// lastAddress is where the server in kms.toml was, empty if there is none.
func (s *Server) lastAddress() string {
	configs, err := kmip.LoadConfig(s.ConfigPath())
	if err != nil {
		return ""
	}
	for _, c := range configs {
		if c.Name == ProviderName && len(c.Servers) == 1 && checkLoopback(c.Servers[0]) == nil {
			return c.Servers[0]
		}
	}
	return ""
}
