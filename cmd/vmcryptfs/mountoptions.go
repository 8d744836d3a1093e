package main

import (
	"slices"
	"strings"

	"vmcryptfs/advice"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/fs/transport"
	"vmcryptfs/layout"
)

// mountOptions are the options of -o, in the form of mount(8) and fstab.
type mountOptions struct {
	daemon.Config          // the options for the daemon
	devkms        bool     // in Config, too, where --dev has the same effect
	unencrypted   string   // a word of -o; --unencrypted overrides
	remount       bool     // change an existing mount
	named         []string // the kernel's options in the given order, for a remount
}

// add adds one list of options, in the form of mounts.SplitOptions. A later option overrides an
// earlier one. With sloppy (mount -s), unknown options are ignored.
func (o *mountOptions) add(list string, sloppy bool) error {
	options, closed := mounts.SplitOptions(list)
	if !closed {
		return advice.Usagef("the mount options %s begin a value in double quotes that has no end; close the quotes", list)
	}
	for _, option := range options {
		known, err := o.addOne(option)
		if err != nil {
			return err
		}
		if !known && !sloppy {
			name, _, _ := strings.Cut(option, "=")
			return advice.New(advice.Usagef("unknown mount option %q", option), didYouMean(closest(name, optionNames()), "docs/operations.md lists the mount options"))
		}
	}
	return nil
}

// addOne takes one option.
func (o *mountOptions) addOne(option string) (known bool, err error) {
	name, value, hasValue := strings.Cut(option, "=")
	if ignoredOption(name, hasValue) || o.remount && shownOption(name) {
		return true, nil
	}
	if target := o.valued(name); target != nil {
		if value == "" {
			return true, advice.Usagef("mount option %s needs a value; write %s=VALUE", name, name)
		}
		if _, err := layout.ParseFileID(value); name == "datastore" && err != nil {
			return true, advice.Usagef("mount option datastore=%s: %w", value, err)
		}
		if name == "transport" && !slices.Contains(transport.Names, value) {
			return true, advice.Usagef("mount option transport=%s is not known; %s is expected", value, strings.Join(transport.Names, " or "))
		}
		*target = value
		return true, nil
	}
	if hasValue {
		return false, nil
	}
	switch name {
	case "ro", "rw":
		o.ReadOnly = name == "ro"
		o.named = append(o.named, name)
	case "allow_other", "noallow_other":
		on := name == "allow_other"
		o.AllowOther = &on
	case "nonempty":
		o.Nonempty = true
	case "protect":
		o.Protect = true
	case "copy":
		o.Copy = true
	case "devkms":
		o.devkms, o.Keys.Dev = true, true
	case "trust":
		o.Trust = true
	case "remount":
		o.remount = true
	case "bind", "rbind", "move":
		return true, advice.Usagef("mount option %s is not possible here; umount, then mount again", name)
	default:
		return o.addKernel(name), nil
	}
	return true, nil
}

// optionNames gives the mount options possibly meant by a mistyped one.
func optionNames() []string {
	return []string{
		"ro", "rw", "allow_other", "noallow_other", "suid", "nosuid", "dev", "nodev", "exec", "noexec",
		"datastore=", "kek=", "kms=", "devkms", "unencrypted=", "trust", "transport=", "nonempty", "protect", "remount", "copy", "noatime", "nofail", "noauto",
	}
}

// valued finds where the value of an option goes, or nil.
func (o *mountOptions) valued(name string) *string {
	switch name {
	case "datastore":
		return &o.Datastore
	case "kek":
		return &o.KEK
	case "kms":
		return &o.Keys.KMS
	case "unencrypted":
		return &o.unencrypted
	case "transport":
		return &o.Transport
	}
	return nil
}

// addKernel adds a mount option kept by the kernel, and reports whether name is one.
func (o *mountOptions) addKernel(name string) bool {
	if !o.SetKernel(name) && !(o.remount && strings.TrimPrefix(name, "no") == "symfollow") {
		return false
	}
	o.named = append(o.named, name)
	return true
}

// ignoredOption reports whether an option has no effect here: the option is for mount(8), systemd
// or fstab, or asks for the normal behaviour.
func ignoredOption(name string, hasValue bool) bool {
	if strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-") || name == "comment" {
		return true
	}
	return !hasValue && slices.Contains([]string{
		"", "defaults", "auto", "noauto", "nofail", "_netdev", "_rnetdev",
		"user", "nouser", "users", "owner", "group", "default_permissions",
		"async", "loud", "silent",
		// The mount of BACKING decides over access times.
		"atime", "noatime", "relatime", "norelatime", "strictatime", "nostrictatime",
		"diratime", "nodiratime", "lazytime", "nolazytime",
	}, name)
}

// asksRemount reports whether one of the lists contains the option remount.
func asksRemount(lists []string) bool {
	return slices.ContainsFunc(lists, func(list string) bool {
		options, _ := mounts.SplitOptions(list)
		return slices.Contains(options, "remount")
	})
}

// shownOption reports whether the kernel shows the option for every mount. mount(8) repeats such
// options at a remount, and no option changes such an option.
func shownOption(name string) bool {
	return slices.Contains([]string{"user_id", "group_id", "rootmode", "max_read", "blksize", "subtype"}, name)
}
