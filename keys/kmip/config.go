package kmip

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"vmcryptfs/keys/kmip/wire"
)

// DefaultTimeout bounds a whole request when kms.toml has no timeout.
const DefaultTimeout = 5 * time.Second

// MaxServers bounds the servers of a provider.
const MaxServers = 8

// DefaultSessions bounds the sessions with one server when kms.toml sets no sessions: a host that
// wakes up and needs a thousand keys must not look like an attack.
const DefaultSessions = 4

// MaxSessions bounds sessions in kms.toml.
const MaxSessions = 64

// Config is one [provider.NAME] table of kms.toml.
type Config struct {
	Name         string        // 1…64 bytes, the limit of headers
	Servers      []string      // host:port, 1…MaxServers, no two the same
	CA           string        // PEM file: the only signers accepted for the servers' certificates
	Cert, Key    string        // PEM files: this host's certificate with private key
	ServerNames  []string      // in the servers' certificates: one for all, or one for each; empty: the hosts of Servers
	KeyPassword  string        // the file's first line opens Key; empty: Key is not encrypted
	Version      string        // "1.2"; empty: discovered
	Username     string        // of a credential in every request; empty: none
	PasswordFile string        // the file's first line is the user's password
	Timeout      time.Duration // of one whole request; 0: DefaultTimeout
	Sessions     int           // with one server at a time, 1…MaxSessions; 0: DefaultSessions
}

// nameOf returns the name required in the certificate of the server at an address.
func (c *Config) nameOf(address string) string {
	i := slices.Index(c.Servers, address)
	switch {
	case len(c.ServerNames) == 1:
		return c.ServerNames[0]
	case i >= 0 && i < len(c.ServerNames):
		return c.ServerNames[i]
	}
	host, _, _ := net.SplitHostPort(address) // check has split the address before
	return host
}

// serverTimeout bounds one server's part of a request's time.
func (c *Config) serverTimeout() time.Duration { return c.timeout() * 2 / 5 }

// waitTime bounds how long a request waits for other requests to release a server's sessions: one
// server's share, and for an only server all the time beside that share.
func (c *Config) waitTime() time.Duration {
	if len(c.Servers) == 1 {
		return c.timeout() - c.serverTimeout()
	}
	return c.serverTimeout()
}

func (c *Config) sessions() int { return cmp.Or(c.Sessions, DefaultSessions) }

func (c *Config) timeout() time.Duration { return cmp.Or(c.Timeout, DefaultTimeout) }

// A ConfigError is a fault in a kms.toml.
type ConfigError struct {
	File   string
	Line   int    // from 1; 0: the file as a whole
	Key    string // "provider.corp.ca"; empty: no single key
	Reason string // the fault, and the expected value
}

// Error is one line: file, line, key, reason.
func (e *ConfigError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	return b.String() + ": " + e.Reason
}

// LoadConfig reads a kms.toml: the providers in the order of the file, at least one. Relative
// file names are relative to the directory of path. A *ConfigError names file, line, key and the
// expected value. Open reads the files named in the configuration.
func LoadConfig(path string) ([]Config, error) {
	text, err := ReadText(path)
	if err != nil {
		return nil, fmt.Errorf("read KMS configuration: %w", err)
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read KMS configuration: %w", err)
	}
	return ParseConfig(path, text)
}

// ParseConfig is LoadConfig of a text read from path, an absolute path.
func ParseConfig(path string, text []byte) ([]Config, error) {
	configs, err := parseConfig(text)
	if wrong, ok := errors.AsType[*ConfigError](err); ok {
		wrong.File = path
	}
	for i := range configs {
		for _, file := range configs[i].files() {
			if *file != "" && !filepath.IsAbs(*file) {
				*file = filepath.Join(filepath.Dir(path), *file)
			}
		}
	}
	return configs, err
}

func (c *Config) files() []*string {
	return []*string{&c.CA, &c.Cert, &c.Key, &c.PasswordFile, &c.KeyPassword}
}

// check returns the key of the first wrong field with the fault, or empty strings.
func (c *Config) check() (key, reason string) {
	if len(c.Name) < 1 || len(c.Name) > 64 || !plain(c.Name) {
		return "", "the provider's name must be 1 to 64 bytes without control characters"
	}
	if reason := checkServers(c.Servers); reason != "" {
		return "servers", reason
	}
	for key, file := range map[string]string{"ca": c.CA, "cert": c.Cert, "key": c.Key} {
		if file == "" {
			return key, "missing: expected the path of a PEM file"
		}
	}
	if n := len(c.ServerNames); n > 1 && n != len(c.Servers) {
		return "server_name", fmt.Sprintf("%d names for %d servers: expected one name for all, or one for each in their order", n, len(c.Servers))
	}
	for _, name := range c.ServerNames {
		if name == "" || !plain(name) || strings.ContainsAny(name, " /") {
			return "server_name", fmt.Sprintf("%q: expected a host name, as \"kms1.example\"", name)
		}
	}
	if c.Version != "" {
		if _, err := wire.ParseVersion(c.Version); err != nil {
			return "version", fmt.Sprintf("%q: expected one of %v", c.Version, wire.Versions())
		}
	}
	if (c.Username == "") != (c.PasswordFile == "") {
		return "username", "username and password_file go together: expected both or none"
	}
	if c.Timeout != 0 && (c.Timeout < 100*time.Millisecond || c.Timeout > time.Minute) {
		return "timeout", fmt.Sprintf("%v: expected 100ms to 1m", c.Timeout)
	}
	if c.Sessions < 0 || c.Sessions > MaxSessions {
		return "sessions", fmt.Sprintf("%d: expected 1 to %d", c.Sessions, MaxSessions)
	}
	return "", ""
}

func checkServers(servers []string) (reason string) {
	if len(servers) < 1 || len(servers) > MaxServers {
		return fmt.Sprintf("%d servers: expected 1 to %d, as [\"kms1.example:5696\"]", len(servers), MaxServers)
	}
	for i, s := range servers {
		host, port, err := net.SplitHostPort(s)
		n, errPort := strconv.ParseUint(port, 10, 16)
		if err != nil || errPort != nil || host == "" || n == 0 || !plain(s) {
			return fmt.Sprintf("%q: expected host:port, as \"kms1.example:5696\"", s)
		}
		if slices.Contains(servers[:i], s) {
			return fmt.Sprintf("%q is there twice", s)
		}
	}
	return ""
}
