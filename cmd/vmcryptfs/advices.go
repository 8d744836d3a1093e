package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/cmd/vmcryptfs/doctor"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/transport"
	"vmcryptfs/fs/wire"
	"vmcryptfs/fs/work"
	"vmcryptfs/keys"
	"vmcryptfs/keys/devkms"
	"vmcryptfs/keys/kmip"
	"vmcryptfs/layout"
)

// hint is the advice for an error.
type hint struct {
	err   error
	do    string
	brief bool // cut a long text after err's words; --verbose shows the rest
}

// adviceFor finds the advice for err, nil if there is none. An error's own advice comes first,
// then the advice for a type of error, then keys and datastores, and at last the system's error
// numbers.
func adviceFor(err error) *hint {
	if own, ok := errors.AsType[*advice.Error](err); ok {
		return &hint{err: own, do: own.Do}
	}
	if a := adviceForType(err); a != nil {
		return a
	}
	for _, list := range [][]hint{keyAdvices(), datastoreAdvices(), systemAdvices()} {
		for _, a := range list {
			if errors.Is(err, a.err) {
				return &a
			}
		}
	}
	return nil
}

func adviceForType(err error) *hint {
	var config *kmip.ConfigError
	var settings *layout.SettingsError
	var busy *mounts.BusyError
	var helper *transport.HelperError
	var server *doctor.Error
	switch {
	case errors.As(err, &server):
		return &hint{err: server, do: "what each server says stands above; docs/kms.md tells what helps"}
	case errors.As(err, &helper) && strings.Contains(helper.Reason, "user_allow_other"):
		return &hint{err: helper, do: "have root put user_allow_other into /etc/fuse.conf, or mount with -o noallow_other"}
	case errors.As(err, &helper) && !strings.Contains(helper.Reason, "; "):
		return &hint{err: helper, do: "let MOUNTPOINT be a directory of yours, or ask root: fusermount3(1) tells what it lets users do"}
	case errors.As(err, &config):
		return &hint{err: config, do: "mend that line; docs/kms.md tells of each key of kms.toml"}
	case errors.As(err, &settings) && !errors.Is(err, layout.ErrUnsupported):
		return &hint{err: settings, do: "restore .vmcryptfs/datastore.toml from a backup of BACKING"}
	case errors.As(err, &busy):
		return &hint{err: busy, do: "end them, or have them close these files, and run it again"}
	}
	return nil
}

// keyAdvices lists the advice about keys and key servers.
func keyAdvices() []hint {
	return []hint{
		{keys.ErrTampered, "restore the file from a backup", false},
		{keys.ErrSeal, "restore .vmcryptfs/datastore.toml from a backup of BACKING: it was changed without the key", true},
		{keys.ErrKeyLength, "choose a 256-bit AES key, or have the KMS make one", false},
		{keys.ErrLocked, "vmcryptfs unlock MOUNTPOINT fetches the keys again", false},
		{keys.ErrUnreachable, "vmcryptfs kms check tells what each key server says", true},
		{keys.ErrRefused, "vmcryptfs kms check tells which right is missing; the KMS grants it to this host's certificate", false},
		{keys.ErrNotFound, "look if the identifier is right; a key that is lost there has to be restored, no other opens what is under it", false},
		{keys.ErrKeyState, "have the KMS activate the key, or choose another", false},
		{keys.ErrWrongKey, "have the KMS restore the key that it had under that identifier", false},
		{keys.ErrServersDiffer, "take the server out of kms.toml that is not of this KMS, or have its key put right", false},
		{keys.ErrNoProvider, "add that provider to kms.toml, or name another file by --kms", false},
		{keys.ErrNoKey, "vmcryptfs kms check tells what each key server says", false},
		{devkms.ErrRunning, "use the one that runs, or end it", false},
	}
}

// datastoreAdvices lists the advice about datastores, files and mounts.
func datastoreAdvices() []hint {
	return []hint{
		{rekey.ErrLastLocker, "add another provider first: vmcryptfs rekey PATH --add PROVIDER", false},
		{rekey.ErrLockersFull, "drop a provider: vmcryptfs rekey PATH --drop PROVIDER", false},
		{backing.ErrHidden, "vmcryptfs export reads it by its second header", false},
		{wire.ErrRequest, "vmcryptfs help rekey tells what goes together", false},
		{layout.ErrUnsupported, "use the newer version of vmcryptfs that made it", false},
		{layout.ErrDamaged, "vmcryptfs info tells what is left of it; restore it from a backup", false},
		{datastore.ErrNone, "name its BACKING or its mount; vmcryptfs init BACKING makes a directory a datastore", false},
		{datastore.ErrExists, "vmcryptfs mount BACKING MOUNTPOINT serves it; for a new one choose another directory", false},
		{datastore.ErrUntrusted, "compare the two; --trust accepts it as it is now", false},
		{datastore.ErrBusy, "vmcryptfs status tells where it is mounted; end that first", false},
		{datastore.ErrChanged, "run it again", false},
		{admin.ErrInUse, "vmcryptfs status tells where; end that first", false},
		{work.ErrBusy, "vmcryptfs status tells how far it is: wait for its end", false},
		{mounts.ErrNotMounted, "vmcryptfs status lists what is mounted", false},
	}
}

// systemAdvices are about the system's own errors.
func systemAdvices() []hint {
	return []hint{
		{context.Canceled, "run it again", false},
		{context.DeadlineExceeded, "run it again; the log of the mount tells what it waits for", false},
		{daemon.ErrSilent, "look at the log of the mount, and if its daemon runs", false},
		{os.ErrPermission, "run it as root, or as the user whom this belongs to", false},
		{unix.EROFS, "mount that file system for writing, or choose another place", false},
		{unix.ENOSPC, "free space there, and run it again", false},
		{unix.EDQUOT, "have the quota raised, or free space there", false},
		{unix.ENOTCONN, "the daemon of that mount is gone: mount it again, or vmcryptfs umount MOUNTPOINT", false},
		{unix.ENOTDIR, "name a directory", false},
		{unix.EISDIR, "name a file", false},
		{os.ErrNotExist, "look if the path is right", false},
		{os.ErrExist, "choose another name", false},
		{unix.EBUSY, "end what uses it, and run it again", false},
		{unix.EIO, "the disk or its file system fails: look into the kernel's log (dmesg)", false},
		{unix.ENOMEM, "raise the limit of locked memory (ulimit -l, LimitMEMLOCK=)", false},
		{unix.EMFILE, "raise the limit of open files (ulimit -n, LimitNOFILE=)", false},
		{unix.ENODEV, "load the kernel's module: modprobe fuse", false},
		{unix.ELOOP, "look where the symbolic links of the path lead", false},
		{unix.EPIPE, "keep the reader of the output alive", false},
	}
}
