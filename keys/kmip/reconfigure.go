package kmip

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Change is one changed key of a provider's table in kms.toml.
type Change struct {
	Key      string // "servers"
	Old, New string // as text; "unset" where the key was or is not there
}

// String is one line for a log or a person.
func (c Change) String() string { return fmt.Sprintf("%s: %s → %s", c.Key, c.Old, c.New) }

// Changes returns the changes from c to next, by key.
func (c *Config) Changes(next *Config) (changes []Change) {
	now, then := c.settings(), next.settings()
	for i, old := range now {
		if old.value != then[i].value {
			changes = append(changes, Change{old.key, shown(old.value), shown(then[i].value)})
		}
	}
	return changes
}

func shown(value string) string {
	if value == "" {
		return "unset"
	}
	return value
}

// A setting is one key of a provider's table with the value as text, empty for an absent key.
type setting struct{ key, value string }

// settings returns all keys of c in a fixed order; none of them is a secret.
func (c *Config) settings() []setting {
	return []setting{
		{"servers", strings.Join(c.Servers, ", ")}, {"ca", c.CA}, {"cert", c.Cert}, {"key", c.Key},
		{"server_name", strings.Join(c.ServerNames, ", ")}, {"key_password_file", c.KeyPassword},
		{"version", c.Version}, {"username", c.Username}, {"password_file", c.PasswordFile},
		{"timeout", c.timeout().String()}, {"sessions", strconv.Itoa(c.sessions())},
	}
}

// Reconfigure takes up a changed configuration of the same name, and returns the changes. With an
// unusable configuration the provider stays unchanged. Requests under way end as if nothing had
// changed. Sessions and goroutines to servers no longer configured end. Sessions to the other
// servers are made anew, and the knowledge of their health stays.
func (p *Provider) Reconfigure(c Config) ([]Change, error) {
	if key, reason := c.check(); reason != "" {
		return nil, &ConfigError{File: "provider " + c.Name, Key: key, Reason: reason}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.cluster()
	changes := old.config.Changes(&c)
	if len(changes) == 0 || p.closed {
		return nil, nil
	}
	next, err := readCluster(c, old.log)
	if err != nil {
		return nil, err
	}
	next.inherit(old)
	p.now.Store(next)
	old.close()
	return changes, nil
}

// inherit takes over old's knowledge of the servers common to both.
func (c *cluster) inherit(old *cluster) {
	for _, s := range c.servers {
		i := slices.IndexFunc(old.servers, func(o *server) bool { return o.address == s.address })
		if i < 0 {
			continue
		}
		s.health.inherit(&old.servers[i].health)
		if chain := old.ids.peers.of(s.address); chain != nil {
			c.ids.peers.keep(s.address, chain)
		}
		if s.suspect() {
			c.probe(s)
		}
	}
}
