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

// Config is one mount as asked for. A Config is complete: two daemons with the same Config serve
// the same mount.
//
// A parent hands a Config to the daemon as JSON, over a pipe. The names of the fields are no
// contract, since both ends are one program.
type Config struct {
	Backing    string    `json:"backing"`    // absolute
	Mountpoint string    `json:"mountpoint"` // absolute
	Keys       KeyConfig `json:"keys"`

	ReadOnly    bool        `json:"read_only"`
	AllowOther  *bool       `json:"allow_other"` // nil: on for root
	Kernel      []string    `json:"kernel"`      // options kept by the kernel: see SetKernel
	Transport   string      `json:"transport"`   // a name of transport.Names; empty: the mount chooses
	Unencrypted Unencrypted `json:"unencrypted"`

	Datastore string `json:"datastore"` // required id of BACKING; empty: any id
	KEK       string `json:"kek"`       // required KEK of BACKING; empty: any KEK
	Trust     bool   `json:"trust"`     // accept settings of BACKING other than this host remembers
	Copy      bool   `json:"copy"`      // BACKING is a copy, to be read beside the original

	Nonempty bool `json:"nonempty"` // MOUNTPOINT may hold files, hidden below the mount
	Protect  bool `json:"protect"`  // make MOUNTPOINT itself immutable

	Supervise bool `json:"supervise"` // mount again when the daemon is gone and did not unmount
	Again     bool `json:"again"`     // take the place of a dead mount at MOUNTPOINT; without a mount there, fail
}

// SetKernel adds a mount option kept by the kernel, and reports whether name is such an option:
// suid, dev, exec or the opposites nosuid, nodev, noexec. Of a pair the later one counts.
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

// Options gives the options of c for -o alone, in the form of -o.
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

// told gives all options of the mount in the form of -o, for status and remounts.
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

// shown gives arguments of the daemon for lists of processes. The daemon itself reads a Config.
func (c *Config) shown() []string {
	args := []string{"mount", "--foreground"}
	if c.Supervise {
		args = append(args, "--supervise")
	}
	return append(args, "--", c.Backing, c.Mountpoint)
}

// configEnv names the descriptor for reading a daemon's Config.
const configEnv = "VMCRYPTFS_CONFIG_FD"

// longestConfig is how long a Config may be as JSON, in bytes.
const longestConfig = 1 << 20

// handedConfig reads the Config from the parent of this process. ok is false where the parent
// hands none. Child processes inherit neither the variable nor the descriptor.
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

// decodeConfig reads the JSON of encode.
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

// texts gives the fields whose text may be other than UTF-8, as paths may be. In JSON the texts
// are quoted as in Go.
func (c *Config) texts() []*string {
	return []*string{&c.Backing, &c.Mountpoint, &c.Keys.KMS, &c.KEK}
}

// check refuses a Config never made by a mount command.
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
