package main

import (
	"fmt"
	"slices"
	"strings"

	"vmcryptfs/advice"
	vmfs "vmcryptfs/fs"
	"vmcryptfs/fs/transport"
	"vmcryptfs/layout"
)

// mountOptions are what -o may say, as mount(8) and fstab write it.
type mountOptions struct {
	readOnly    bool
	allowOther  *bool // nil: on for root
	kernel      []string
	datastore   string // pins of the settings, design §5
	kek         string
	kms         string
	devkms      bool
	unencrypted string
	trust       bool
	transport   string   // empty: the one for this mount
	nonempty    bool     // MOUNTPOINT may hold something, which the mount hides
	protect     bool     // make MOUNTPOINT itself immutable
	copied      bool     // BACKING is a copy, to be read beside the original
	remount     bool     // change a mount that is there
	named       []string // those of the kernel's, in their order, for a remount
}

// add takes one list, as splitOptions reads it; a later option overrides an earlier one. With
// sloppy, as mount -s wants, unknown options are passed over.
func (o *mountOptions) add(list string, sloppy bool) error {
	options, closed := splitOptions(list)
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
		o.readOnly = name == "ro"
		o.named = append(o.named, name)
	case "allow_other", "noallow_other":
		on := name == "allow_other"
		o.allowOther = &on
	case "nonempty":
		o.nonempty = true
	case "protect":
		o.protect = true
	case "copy":
		o.copied = true
	case "devkms":
		o.devkms = true
	case "trust":
		o.trust = true
	case "remount":
		o.remount = true
	case "bind", "rbind", "move":
		return true, advice.Usagef("mount option %s is not possible here; umount, then mount again", name)
	default:
		return o.addKernel(name), nil
	}
	return true, nil
}

// optionNames are the mount options that one may mean.
func optionNames() []string {
	return []string{
		"ro", "rw", "allow_other", "noallow_other", "suid", "nosuid", "dev", "nodev", "exec", "noexec",
		"datastore=", "kek=", "kms=", "devkms", "unencrypted=", "trust", "transport=", "nonempty", "protect", "remount", "copy", "noatime", "nofail", "noauto",
	}
}

// list gives the options back that no flag of mount says.
func (o *mountOptions) list() []string {
	list := slices.Clone(o.kernel)
	if o.readOnly {
		list = append(list, "ro")
	}
	switch {
	case o.allowOther == nil:
	case *o.allowOther:
		list = append(list, "allow_other")
	default:
		list = append(list, "noallow_other")
	}
	if o.datastore != "" {
		list = append(list, "datastore="+o.datastore)
	}
	if o.kek != "" {
		list = append(list, "kek="+escapeOption(o.kek))
	}
	if o.transport != "" {
		list = append(list, "transport="+o.transport)
	}
	if o.nonempty {
		list = append(list, "nonempty")
	}
	if o.copied {
		list = append(list, "copy")
	}
	if o.protect {
		list = append(list, "protect")
	}
	return list
}

// valued finds where the value of an option goes, or nil.
func (o *mountOptions) valued(name string) *string {
	switch name {
	case "datastore":
		return &o.datastore
	case "kek":
		return &o.kek
	case "kms":
		return &o.kms
	case "unencrypted":
		return &o.unencrypted
	case "transport":
		return &o.transport
	}
	return nil
}

// addKernel takes an option that the kernel keeps for the mount. Of a pair the later
// counts.
func (o *mountOptions) addKernel(name string) bool {
	base := strings.TrimPrefix(name, "no")
	if !slices.Contains([]string{"suid", "dev", "exec"}, base) && !(o.remount && base == "symfollow") {
		return false
	}
	o.named = append(o.named, name)
	o.kernel = slices.DeleteFunc(o.kernel, func(old string) bool {
		return strings.TrimPrefix(old, "no") == base
	})
	o.kernel = append(o.kernel, name)
	return true
}

// ignoredOption tells if an option is for mount(8), systemd or fstab alone, or says
// what is so anyway.
func ignoredOption(name string, hasValue bool) bool {
	if strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-") || name == "comment" {
		return true
	}
	return !hasValue && slices.Contains([]string{
		"", "defaults", "auto", "noauto", "nofail", "_netdev", "_rnetdev",
		"user", "nouser", "users", "owner", "group", "default_permissions",
		"async", "loud", "silent",
		// Access times are those of BACKING, and so its mount decides over them.
		"atime", "noatime", "relatime", "norelatime", "strictatime", "nostrictatime",
		"diratime", "nodiratime", "lazytime", "nolazytime",
	}, name)
}

// asksRemount tells if one of the lists of options does.
func asksRemount(lists []string) bool {
	return slices.ContainsFunc(lists, func(list string) bool {
		options, _ := splitOptions(list)
		return slices.Contains(options, "remount")
	})
}

// shownOption tells of an option that the kernel shows of a mount: mount(8) says it again at a
// remount, and nothing changes it.
func shownOption(name string) bool {
	return slices.Contains([]string{"user_id", "group_id", "rootmode", "max_read", "blksize", "subtype"}, name)
}

// parseUnencrypted reads --unencrypted.
func parseUnencrypted(s string) (vmfs.Unencrypted, error) {
	for u := vmfs.Deny; u <= vmfs.Write; u++ {
		if s == unencryptedWord(u) {
			return u, nil
		}
	}
	return vmfs.Deny, advice.Usagef("unencrypted=%s is not known; deny, read or write is expected", s)
}

// unencryptedWord is the word for u in options and status.
func unencryptedWord(u vmfs.Unencrypted) string {
	switch u {
	case vmfs.Deny:
		return "deny"
	case vmfs.Read:
		return "read"
	case vmfs.Write:
		return "write"
	}
	return fmt.Sprintf("Unencrypted(%d)", u)
}
