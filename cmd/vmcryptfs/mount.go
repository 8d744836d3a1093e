package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"vmcryptfs/advice"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/transport"
	"vmcryptfs/words"
)

const mountUsage = "BACKING MOUNTPOINT [-o option,…] | --check BACKING"

// mount serves a datastore: in the background, unless --foreground.
func (p *program) mount(ctx context.Context, args []string) error {
	if handed, err := daemon.Inherited(ctx, p.forDaemon()); handed {
		return err
	}
	var c mountOptions
	var k keyFlags
	var options []string
	var unencrypted string
	f := p.flags("mount")
	f.StringArrayVarP(&options, "options", "o", nil, "mount options as for mount(8); see docs/operations.md")
	foreground := f.BoolP("foreground", "f", false, "stay in the foreground and log to standard error")
	f.BoolVar(&c.Supervise, "supervise", false, "mount again at once if the daemon crashes or is killed")
	f.BoolVar(&c.Again, "again", false, "for the supervisor: mount in the place of a dead mount only")
	_ = f.MarkHidden("again") // fails only for an unknown flag
	k.add(f)
	f.StringVar(&unencrypted, "unencrypted", "", "cleartext under a name that is encrypted: deny (default), read or write")
	f.BoolVar(&c.Protect, "protect", false, "make MOUNTPOINT itself immutable (chattr +i): without the mount nothing can be written there")
	f.BoolVar(&c.Trust, "trust", false, "accept another datastore, KEK or older settings than this host remembers for BACKING")
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
	c.remount = asksRemount(options)
	for _, list := range options {
		if err := c.add(list, false); err != nil {
			return err
		}
	}
	if err := c.complete(args[0], args[1], k, unencrypted); err != nil {
		return err
	}
	if c.remount {
		return p.remount(ctx, c)
	}
	if c.Supervise && os.Geteuid() != 0 {
		return advice.Usagef("--supervise is root's: fusermount3 does not mount over a dead mount, and without one guests would write to MOUNTPOINT in clear")
	}
	return p.start(ctx, c.Config, *foreground)
}

// mount8 is the command line of mount(8)'s helpers: BACKING MOUNTPOINT [-sfnv] [-N namespace] [-o
// options] [-t type]. suid and dev are on by default, as for any file system.
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
	var c mountOptions
	defaults := "suid,dev"
	if c.remount = asksRemount(options); c.remount {
		defaults += ",exec,symfollow" // mount(8) omits both and names all other options of the mount
	}
	for _, list := range append([]string{defaults}, options...) {
		if err := c.add(list, *sloppy); err != nil {
			return err
		}
	}
	if err := c.complete(args[0], args[1], keyFlags{}, ""); err != nil || *fake {
		return err
	}
	if c.remount {
		return p.remount(ctx, c)
	}
	return p.start(ctx, c.Config, false)
}

// ignoreMount8Flags accepts flags of mount(8) without an effect here.
func ignoreMount8Flags(f *pflag.FlagSet) {
	f.BoolP("no-mtab", "n", false, "ignored")
	f.StringP("namespace", "N", "", "ignored")
	f.StringP("types", "t", "", "ignored")
}

// complete joins flags and -o; flags override -o. Paths become absolute, since the daemon works in
// /.
func (c *mountOptions) complete(backing, mountpoint string, k keyFlags, unencrypted string) (err error) {
	if k.KMS != "" {
		c.Keys.KMS = k.KMS
	}
	c.Keys.Dev = c.Keys.Dev || k.Dev
	if c.Copy && !c.ReadOnly && !c.remount {
		return advice.Usagef("mount option copy is for reading alone: -o ro,copy")
	}
	if unencrypted == "" {
		unencrypted = c.unencrypted
	}
	if unencrypted != "" {
		if c.Unencrypted, err = daemon.ParseUnencrypted(unencrypted); err != nil {
			return err
		}
	}
	if c.Transport == transport.Loop && os.Geteuid() != 0 {
		return advice.Usagef("mount option transport=%s is root's; leave it out: users' mounts are served by %s", transport.Loop, transport.GoFuse)
	}
	for _, path := range []struct {
		to   *string
		path string
	}{{&c.Backing, backing}, {&c.Mountpoint, mountpoint}, {&c.Keys.KMS, c.Keys.KMS}} {
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
func (p *program) start(ctx context.Context, c daemon.Config, here bool) error {
	if here {
		return daemon.Serve(ctx, c, p.forDaemon())
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	return daemon.Start(ctx, c, func(w string) {
		fmt.Fprintln(p.stderr, "vmcryptfs: warning: "+words.Line(w))
	})
}

// forDaemon gives the daemon in this process the needed parts of p.
func (p *program) forDaemon() daemon.Program {
	return daemon.Program{Stderr: p.stderr, Explain: explain}
}
