package kmip

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Change is one key of a provider's table in kms.toml that says something else now.
type Change struct {
	Key      string // "servers"
	Old, New string // as text; "unset" where the key was or is not there
}

// String is one line for a log or a person.
func (c Change) String() string { return fmt.Sprintf("%s: %s → %s", c.Key, c.Old, c.New) }

// Changes are those from c to next, by key.
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

// A setting is one key of a provider's table with its value as text, empty if it is not
// there.
type setting struct{ key, value string }

// settings are all keys of c, none of which is a secret, in a fixed order.
func (c *Config) settings() []setting {
	return []setting{
		{"servers", strings.Join(c.Servers, ", ")}, {"ca", c.CA}, {"cert", c.Cert}, {"key", c.Key},
		{"server_name", strings.Join(c.ServerNames, ", ")}, {"key_password_file", c.KeyPassword},
		{"version", c.Version}, {"username", c.Username}, {"password_file", c.PasswordFile},
		{"timeout", c.timeout().String()}, {"sessions", strconv.Itoa(c.sessions())},
	}
}

// Reconfigure takes up a changed configuration of the same name, and tells what changed.
// When it cannot be used the provider stays as it was. Requests under way end as they
// would have; sessions and goroutines to servers that are configured no more end, those to
// the others are made anew, and what is known of their health stays.
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

// inherit takes over what old knows of the servers that are c's too.
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
