package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"vmcryptfs/advice"
	vmfs "vmcryptfs/fs"
	"vmcryptfs/fs/transport"
)

const mountUsage = "BACKING MOUNTPOINT [-o option,…] | --check BACKING"

// mountConfig is one mount as asked for.
type mountConfig struct {
	backing     string // absolute
	mountpoint  string // absolute
	keys        keyFlags
	options     mountOptions
	unencrypted vmfs.Unencrypted
	trust       bool
	foreground  bool
	supervise   bool
	again       bool // a dead mount is to be at mountpoint, or somebody unmounted it
}

// mount serves a datastore: in the background, unless --foreground.
func (p *program) mount(ctx context.Context, args []string) error {
	var c mountConfig
	var options []string
	var unencrypted string
	f := p.flags("mount")
	f.StringArrayVarP(&options, "options", "o", nil, "mount options as for mount(8); see docs/operations.md")
	f.BoolVarP(&c.foreground, "foreground", "f", false, "stay in the foreground and log to standard error")
	f.BoolVar(&c.supervise, "supervise", false, "mount again at once if the daemon crashes or is killed")
	f.BoolVar(&c.again, "again", false, "for the supervisor: mount in the place of a dead mount only")
	_ = f.MarkHidden("again") // it is there
	c.keys.add(f)
	f.StringVar(&unencrypted, "unencrypted", "", "cleartext under a name that is encrypted: deny (default), read or write")
	protect := f.Bool("protect", false, "make MOUNTPOINT itself immutable (chattr +i): without the mount nothing can be written there")
	f.BoolVar(&c.trust, "trust", false, "accept another datastore, KEK or older settings than this host remembers for BACKING")
	check := f.Bool("check", false, "print what the file system of BACKING can do, and mount nothing")
	asJSON := f.Bool("json", false, "of --check: print JSON")
	least := 2
	if slices.Contains(args, "--check") {
		least = 1
	}
	args, err := p.parse(f, args, mountUsage, least, 2)
	if err != nil {
		return err
	}
	if *check {
		return p.checkBacking(ctx, args[0], *asJSON)
	}
	c.options.remount = asksRemount(options)
	for _, list := range options {
		if err := c.options.add(list, false); err != nil {
			return err
		}
	}
	c.options.protect = c.options.protect || *protect
	if err := c.complete(args[0], args[1], unencrypted); err != nil {
		return err
	}
	if c.options.remount {
		return p.remount(ctx, c)
	}
	if c.supervise && os.Geteuid() != 0 {
		return advice.Usagef("--supervise is root's: fusermount3 does not mount over a dead mount, and without one guests would write to MOUNTPOINT in clear")
	}
	return p.start(ctx, c)
}

// mount8 is the way mount(8) calls its helpers: BACKING MOUNTPOINT [-sfnv] [-N namespace]
// [-o options] [-t type]. Its defaults for suid and dev hold, as for any file system.
func (p *program) mount8(ctx context.Context, args []string) error {
	var options []string
	f := p.flags("mount")
	sloppy := f.BoolP("sloppy", "s", false, "pass over unknown mount options")
	fake := f.BoolP("fake", "f", false, "check the options alone")
	f.StringArrayVarP(&options, "options", "o", nil, "mount options")
	ignoreMount8Flags(f)
	args, err := p.parse(f, args, mountUsage, 2, 2)
	if err != nil {
		return err
	}
	var c mountConfig
	defaults := "suid,dev"
	if c.options.remount = asksRemount(options); c.options.remount {
		defaults += ",exec,symfollow" // it leaves them out, and says all others that the mount is to have
	}
	for _, list := range append([]string{defaults}, options...) {
		if err := c.options.add(list, *sloppy); err != nil {
			return err
		}
	}
	if err := c.complete(args[0], args[1], ""); err != nil || *fake {
		return err
	}
	if c.options.remount {
		return p.remount(ctx, c)
	}
	return p.start(ctx, c)
}

// ignoreMount8Flags takes what mount(8) passes and we have no use for.
func ignoreMount8Flags(f *pflag.FlagSet) {
	f.BoolP("no-mtab", "n", false, "ignored")
	f.StringP("namespace", "N", "", "ignored")
	f.StringP("types", "t", "", "ignored")
}

// complete joins flags and -o, of which the flags count more, and makes paths absolute:
// the daemon works in /.
func (c *mountConfig) complete(backing, mountpoint, unencrypted string) (err error) {
	if c.keys.kms == "" {
		c.keys.kms = c.options.kms
	}
	c.keys.dev = c.keys.dev || c.options.devkms
	c.trust = c.trust || c.options.trust
	if c.options.copied && !c.options.readOnly && !c.options.remount {
		return advice.Usagef("mount option copy is for reading alone: -o ro,copy")
	}
	if unencrypted == "" {
		unencrypted = c.options.unencrypted
	}
	if unencrypted != "" {
		if c.unencrypted, err = parseUnencrypted(unencrypted); err != nil {
			return err
		}
	}
	if c.options.transport == transport.Loop && os.Geteuid() != 0 {
		return advice.Usagef("mount option transport=%s is root's; leave it out: users' mounts are served by %s", transport.Loop, transport.GoFuse)
	}
	for _, path := range []struct {
		to   *string
		path string
	}{{&c.backing, backing}, {&c.mountpoint, mountpoint}, {&c.keys.kms, c.keys.kms}} {
		if path.path == "" {
			continue
		}
		abs, err := filepath.Abs(path.path)
		if err != nil {
			return fmt.Errorf("%s: %w", path.path, err)
		}
		*path.to = abs
	}
	return nil
}

// start serves here or in a daemon.
func (p *program) start(ctx context.Context, c mountConfig) error {
	if c.foreground {
		return p.serveForeground(ctx, c)
	}
	return p.startDaemon(ctx, c)
}

// told are the options of this mount, those of its own as -o has them.
func (c *mountConfig) told() string {
	list := c.options.list()
	if c.options.allowOther == nil && os.Geteuid() == 0 {
		list = append(list, "allow_other")
	}
	if c.keys.kms != "" {
		list = append(list, "kms="+escapeOption(c.keys.kms))
	}
	if c.keys.dev {
		list = append(list, "devkms")
	}
	return strings.Join(append(list, "unencrypted="+unencryptedWord(c.unencrypted)), ",")
}

// args are the arguments that give the same mount in the foreground.
func (c *mountConfig) args() []string {
	args := []string{"mount", "--foreground"}
	if o := c.options.list(); len(o) > 0 {
		args = append(args, "-o", strings.Join(o, ","))
	}
	if c.keys.kms != "" {
		args = append(args, "--kms", c.keys.kms)
	}
	if c.keys.dev {
		args = append(args, "--dev")
	}
	if c.trust {
		args = append(args, "--trust")
	}
	if c.supervise {
		args = append(args, "--supervise")
	}
	if c.again {
		args = append(args, "--again")
	}
	return append(args, "--unencrypted", unencryptedWord(c.unencrypted), "--", c.backing, c.mountpoint)
}
