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

// DefaultSessions bounds the sessions with one server when kms.toml has no sessions:
// a host that wakes up with a thousand keys to get must not look like an attack.
const DefaultSessions = 4

// MaxSessions bounds what kms.toml may say of that.
const MaxSessions = 64

// Config is one [provider.NAME] table of kms.toml.
type Config struct {
	Name         string        // 1…64 bytes, as headers hold it
	Servers      []string      // host:port, 1…MaxServers, no two the same
	CA           string        // PEM file: only these sign the servers' certificates
	Cert, Key    string        // PEM files: this host's certificate and private key
	ServerNames  []string      // in the servers' certificates: one for all, or one for each; empty: the hosts of Servers
	KeyPassword  string        // the first line of this file opens Key; empty: it is not encrypted
	Version      string        // "1.2"; empty: discovered
	Username     string        // of a credential in every request; empty: none
	PasswordFile string        // its password, the first line of this file
	Timeout      time.Duration // of one whole request; 0: DefaultTimeout
	Sessions     int           // with one server at a time, 1…MaxSessions; 0: DefaultSessions
}

// nameOf is the name that the certificate of the server at an address must have.
func (c *Config) nameOf(address string) string {
	i := slices.Index(c.Servers, address)
	switch {
	case len(c.ServerNames) == 1:
		return c.ServerNames[0]
	case i >= 0 && i < len(c.ServerNames):
		return c.ServerNames[i]
	}
	host, _, _ := net.SplitHostPort(address) // check saw that it splits
	return host
}

// serverTimeout bounds what one server may take of a request's time.
func (c *Config) serverTimeout() time.Duration { return c.timeout() * 2 / 5 }

// waitTime bounds how long a request waits for others to end their use of a server's
// sessions: its share, but where there is no other server all that is left beside that.
func (c *Config) waitTime() time.Duration {
	if len(c.Servers) == 1 {
		return c.timeout() - c.serverTimeout()
	}
	return c.serverTimeout()
}

func (c *Config) sessions() int { return cmp.Or(c.Sessions, DefaultSessions) }

func (c *Config) timeout() time.Duration { return cmp.Or(c.Timeout, DefaultTimeout) }

// A ConfigError is what is wrong in a kms.toml.
type ConfigError struct {
	File   string
	Line   int    // from 1; 0: the file as a whole
	Key    string // "provider.corp.ca"; empty: no key of its own
	Reason string // what is wrong, and what is expected
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

// LoadConfig reads a kms.toml: its providers in the order of the file, at least one.
// File names in it are taken relative to its directory. A *ConfigError names file,
// line, key and what is expected; the files it names are looked at by Open.
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

// ParseConfig is LoadConfig of a text that was read from path, which is absolute.
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

// check gives the key of the first wrong field and what is wrong with it.
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
