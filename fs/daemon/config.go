package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/mounts"
	"vmcryptfs/fs/transport"
	"vmcryptfs/layout"
)

// Config is one mount as it was asked for. It is complete: a daemon that is started with the
// Config of another one serves the same mount.
//
// A parent hands it to its daemon as JSON, over a pipe. Its fields are no contract: both ends are
// one program.
type Config struct {
	Backing    string    `json:"backing"`    // absolute
	Mountpoint string    `json:"mountpoint"` // absolute
	Keys       KeyConfig `json:"keys"`

	ReadOnly    bool        `json:"read_only"`
	AllowOther  *bool       `json:"allow_other"` // nil: on for root
	Kernel      []string    `json:"kernel"`      // what the kernel keeps for the mount: see SetKernel
	Transport   string      `json:"transport"`   // empty: the one for this mount
	Unencrypted Unencrypted `json:"unencrypted"`

	Datastore string `json:"datastore"` // the id that BACKING must have; empty: any
	KEK       string `json:"kek"`       // the KEK that BACKING must have; empty: any
	Trust     bool   `json:"trust"`     // accept what differs from what this host remembers of BACKING
	Copy      bool   `json:"copy"`      // BACKING is a copy, to be read beside the original

	Nonempty bool `json:"nonempty"` // MOUNTPOINT may hold something, which the mount hides
	Protect  bool `json:"protect"`  // make MOUNTPOINT itself immutable

	Supervise bool `json:"supervise"` // mount again when the daemon is gone and did not unmount
	Again     bool `json:"again"`     // a dead mount is to be at MOUNTPOINT, or somebody unmounted it
}

// SetKernel takes an option that the kernel keeps for the mount, and reports whether name is one:
// suid, dev, exec or their opposites. Of a pair the later one counts.
func (c *Config) SetKernel(name string) bool {
	base := strings.TrimPrefix(name, "no")
	if !slices.Contains([]string{"suid", "dev", "exec"}, base) {
		return false
	}
	c.Kernel = slices.DeleteFunc(c.Kernel, func(old string) bool {
		return strings.TrimPrefix(old, "no") == base
	})
	c.Kernel = append(c.Kernel, name)
	return true
}

// Options gives those of c that -o alone says, as -o has them.
func (c *Config) Options() []string {
	list := slices.Clone(c.Kernel)
	if c.ReadOnly {
		list = append(list, "ro")
	}
	switch {
	case c.AllowOther == nil:
	case *c.AllowOther:
		list = append(list, "allow_other")
	default:
		list = append(list, "noallow_other")
	}
	if c.Datastore != "" {
		list = append(list, "datastore="+c.Datastore)
	}
	if c.KEK != "" {
		list = append(list, "kek="+mounts.EscapeOption(c.KEK))
	}
	if c.Transport != "" {
		list = append(list, "transport="+c.Transport)
	}
	if c.Nonempty {
		list = append(list, "nonempty")
	}
	if c.Copy {
		list = append(list, "copy")
	}
	if c.Protect {
		list = append(list, "protect")
	}
	return list
}

// told gives all options of the mount as -o has them, for status and remounts.
func (c *Config) told() string {
	list := c.Options()
	if c.AllowOther == nil && os.Geteuid() == 0 {
		list = append(list, "allow_other")
	}
	if c.Keys.KMS != "" {
		list = append(list, "kms="+mounts.EscapeOption(c.Keys.KMS))
	}
	if c.Keys.Dev {
		list = append(list, "devkms")
	}
	return strings.Join(append(list, "unencrypted="+c.Unencrypted.String()), ",")
}

// shown are the arguments of the daemon, for who looks at processes: the daemon goes by its
// Config.
func (c *Config) shown() []string {
	args := []string{"mount", "--foreground"}
	if c.Supervise {
		args = append(args, "--supervise")
	}
	return append(args, "--", c.Backing, c.Mountpoint)
}

// configEnv names the descriptor from which a daemon reads its Config.
const configEnv = "VMCRYPTFS_CONFIG_FD"

// longestConfig is how long a Config may be as JSON, in bytes.
const longestConfig = 1 << 20

// handedConfig reads the Config that the parent of this process hands to it; ok is false where
// there is none. Programs that this process starts hear nothing of it.
func handedConfig() (c Config, ok bool, err error) {
	value, ok := os.LookupEnv(configEnv)
	if !ok {
		return Config{}, false, nil
	}
	os.Unsetenv(configEnv)
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return Config{}, true, fmt.Errorf("%s=%s is not a descriptor", configEnv, value)
	}
	unix.CloseOnExec(fd)
	from := os.NewFile(uintptr(fd), "configuration")
	defer from.Close()
	text, err := io.ReadAll(io.LimitReader(from, longestConfig+1))
	if err == nil {
		c, err = decodeConfig(text)
	}
	if err != nil {
		return Config{}, true, fmt.Errorf("configuration of the daemon: %w", err)
	}
	return c, true, nil
}

// encode gives c as JSON.
func (c Config) encode() ([]byte, error) {
	for _, text := range c.texts() {
		quoted := strconv.Quote(*text)
		*text = quoted[1 : len(quoted)-1]
	}
	b, err := json.Marshal(c)
	if err == nil && len(b) > longestConfig {
		err = errors.New("the options are too long")
	}
	return b, err
}

// decodeConfig reads what encode gives.
func decodeConfig(text []byte) (Config, error) {
	if len(text) > longestConfig {
		return Config{}, errors.New("it is too long")
	}
	var c Config
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Config{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("something follows it")
	}
	for _, text := range c.texts() {
		plain, err := strconv.Unquote(`"` + *text + `"`)
		if err != nil {
			return Config{}, fmt.Errorf("text %q: %w", *text, err)
		}
		*text = plain
	}
	return c, c.check()
}

// texts are the fields whose text may be no UTF-8, as paths are: JSON has these quoted as in Go.
func (c *Config) texts() []*string {
	return []*string{&c.Backing, &c.Mountpoint, &c.Keys.KMS, &c.KEK}
}

// check refuses what no mount command makes.
func (c *Config) check() error {
	paths := []string{c.Backing, c.Mountpoint}
	if c.Keys.KMS != "" {
		paths = append(paths, c.Keys.KMS)
	}
	for _, path := range paths {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("the path %q is not absolute", path)
		}
	}
	if c.Datastore != "" {
		if _, err := layout.ParseFileID(c.Datastore); err != nil {
			return err
		}
	}
	if c.Transport != "" && !slices.Contains(transport.Names, c.Transport) {
		return fmt.Errorf("the transport %q is not known", c.Transport)
	}
	for _, name := range c.Kernel {
		if !new(Config).SetKernel(name) {
			return fmt.Errorf("the option %q is none of the kernel's", name)
		}
	}
	if c.Copy && !c.ReadOnly {
		return errors.New("a copy is for reading alone")
	}
	return nil
}
