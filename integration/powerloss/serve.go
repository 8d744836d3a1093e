package powerloss

import (
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Mount is a Disk being served at a directory.
type Mount struct {
	server *fuse.Server
	dir    string
	done   chan struct{}
}

// Serve mounts d at dir; needs root. A Disk may be mounted again after the end of its Mount.
func (d *Disk) Serve(dir string) (*Mount, error) {
	server, err := fuse.NewServer(raw{fuse.NewDefaultRawFileSystem(), d}, dir, &fuse.MountOptions{
		Name: "powerloss", FsName: "powerloss", AllowOther: true, Options: []string{"default_permissions"},
		DirectMountStrict: true, MaxWrite: 1 << 20, DisableReadDirPlus: true,
	})
	if err != nil {
		return nil, fmt.Errorf("mount powerloss at %s: %w", dir, err)
	}
	m := &Mount{server: server, dir: dir, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		server.Serve()
	}()
	if err := server.WaitMount(); err != nil {
		return nil, fmt.Errorf("mount powerloss at %s: %w", dir, err)
	}
	return m, nil
}

// Unmount ends the mount: the kernel detaches the mount at once, and the mount is served until
// nothing in it is open.
func (m *Mount) Unmount() error {
	if err := unix.Unmount(m.dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", m.dir, err)
	}
	<-m.done
	return nil
}
