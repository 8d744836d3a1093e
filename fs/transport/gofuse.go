package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"

	"vmcryptfs/fs/mounts"
)

const (
	maxWrite      = 1 << 20 // bytes of one READ or WRITE: the kernel's offer
	maxBackground = 128     // asynchronous requests in flight: direct I/O and readahead
)

// wanted are the capabilities beyond go-fuse's own requests (design §8).
const wanted = fuse.CAP_ASYNC_DIO | // many direct requests in flight for one file
	fuse.CAP_HANDLE_KILLPRIV_V2 | // fs clears suid and sgid, so no attribute is read before each write
	fuse.CAP_DONT_MASK | // a default ACL replaces the umask; only fs knows default ACLs
	fuse.CAP_SETXATTR_EXT | // tells when setting an ACL clears sgid
	fuse.CAP_EXPORT_SUPPORT | // fs looks up the file handles of inodes forgotten by the kernel
	fuse.CAP_DIRECT_IO_ALLOW_MMAP | // mmap of a file opened O_DIRECT
	fuse.CAP_READDIRPLUS_AUTO

// unwanted are capabilities requested by go-fuse, or perhaps by a later version. Passthrough
// would go around encryption; write-back loses answered writes when the daemon is killed;
// NO_OPEN_SUPPORT and ATOMIC_O_TRUNC hide opens and truncations from fs.
const unwanted = fuse.CAP_PASSTHROUGH | fuse.CAP_WRITEBACK_CACHE |
	fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_ATOMIC_O_TRUNC

type goFuse struct{ mount }

func serveGoFuse(mountpoint string, raw fuse.RawFileSystem, o Options) (Server, error) {
	raw = newBounded(raw)
	if os.Geteuid() != 0 {
		return serveByHelper(mountpoint, raw, o)
	}
	fuseFD, mount, err := connect(mountpoint, o)
	if err != nil {
		return nil, err
	}
	// go-fuse takes over a connection passed as this path.
	server, err := fuse.NewServer(raw, "/dev/fd/"+strconv.Itoa(fuseFD), mountOptions(o))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", mountpoint, err), mount.Unmount(true))
	}
	s := &goFuse{mount}
	s.serve(server, o)
	if err := s.answers(); err != nil {
		return nil, s.giveUp(err)
	}
	return s, nil
}

// serveByHelper mounts by fusermount3, for users other than root. The mount has its place from
// the beginning.
func serveByHelper(mountpoint string, raw fuse.RawFileSystem, o Options) (Server, error) {
	fuseFD, err := connectByHelper(mountpoint, o)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	server, err := fuse.NewServer(raw, "/dev/fd/"+strconv.Itoa(fuseFD), mountOptions(o))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", mountpoint, err), mounts.UnmountPath(mountpoint, true))
	}
	s := &goFuse{}
	if s.mount, err = found(mountpoint); err != nil {
		go server.Serve() // Serve notices the end of the mount, and closes
		return nil, err
	}
	s.serve(server, o)
	if err := s.answers(); err != nil {
		return nil, s.giveUp(err)
	}
	return s, nil
}

func (s *goFuse) serve(server *fuse.Server, o Options) {
	o.initialised(server, server.KernelSettings().Flags64())
	go func() {
		defer close(s.done)
		server.Serve()
	}()
}

func mountOptions(o Options) *fuse.MountOptions {
	m := &fuse.MountOptions{
		Name:                     "vmcryptfs",
		FsName:                   o.FsName,
		AllowOther:               o.AllowOther,
		Options:                  append([]string{"default_permissions"}, o.Extra...),
		MaxBackground:            maxBackground,
		MaxWrite:                 maxWrite,
		MaxInflightRequestBytes:  mostHeld,
		DisableSplice:            true,
		ExplicitDataCacheControl: true,
		EnableAcl:                true,
		ExtraCapabilities:        wanted,
		DisabledCapabilities:     unwanted,
	}
	if o.Log != nil {
		m.Logger = slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn)
	}
	if o.ReadOnly {
		m.Options = append(m.Options, "ro")
	}
	return m
}

// initialised is called when INIT is answered.
func (o Options) initialised(n Notifier, offered uint64) {
	o.reportMissing(offered)
	if o.OnInit != nil {
		o.OnInit(newNotices(n))
	}
}

// reportMissing logs capabilities missing in this kernel: their lack costs speed or, for the last
// ones, exactness.
func (o Options) reportMissing(offered uint64) {
	if o.Log == nil {
		return
	}
	for _, c := range []struct {
		flag   uint64
		effect string
	}{
		{fuse.CAP_ASYNC_DIO, "one direct request at a time for each file"},
		{fuse.CAP_HANDLE_KILLPRIV_V2, "an extended attribute is read before each write"},
		{fuse.CAP_DIRECT_IO_ALLOW_MMAP, "no shared mmap of files opened O_DIRECT"},
		{fuse.CAP_EXPLICIT_INVAL_DATA, "cached pages of a file are dropped when its time changes"},
		{fuse.CAP_POSIX_ACL, "no POSIX ACLs"},
		{fuse.CAP_DONT_MASK, "the umask applies in directories with a default ACL too"},
	} {
		if offered&c.flag == 0 {
			o.Log.Warn("this kernel's FUSE lacks a feature", "effect", c.effect)
		}
	}
}

func (s *goFuse) Name() string { return GoFuse }
