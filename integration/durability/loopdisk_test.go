package durability

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/powerloss"
)

// loopDisk is ext4 on a loop device over a file.
type loopDisk struct{ image, dir string }

// makeExt4 makes a file system of so many MiB in the file image.
func makeExt4(image string, mib int, options ...string) error {
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, int64(mib)<<20); err != nil {
		return err
	}
	return runTool(append(append([]string{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"}, options...), image)...)
}

// mount mounts the disk at dir; the loop device goes away with the mount.
func (l loopDisk) mount(options string) error {
	return runTool("mount", "-t", "ext4", "-o", strings.TrimPrefix(options+",loop", ","), l.image, l.dir)
}

func runTool(argv ...string) error {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return nil
}

// onDisk is ext4 as BACKING, with the image on a disk that forgets everything not flushed: a
// power loss leaves the journal's replay of any part of the image.
type onDisk struct {
	disk loopDisk
	bare bare // holds the image
	made bool
}

func newOnDisk(t *testing.T, backing string) *onDisk {
	dir := t.TempDir()
	return &onDisk{disk: loopDisk{filepath.Join(dir, "disk.img"), backing}, bare: bare{backing: dir}}
}

func (o *onDisk) up(disk *powerloss.Disk) error {
	if err := o.bare.up(disk); err != nil {
		return err
	}
	if !o.made {
		if err := errors.Join(makeExt4(o.disk.image, 48), syncDirOf(o.disk.image)); err != nil {
			return err
		}
		o.made = true
	}
	return o.disk.mount("")
}

func (o *onDisk) down() error {
	if o.bare.mount == nil {
		return nil
	}
	if err := unix.Unmount(o.disk.dir, unix.MNT_DETACH); err != nil && err != unix.EINVAL {
		return fmt.Errorf("unmount %s: %w", o.disk.dir, err)
	}
	return o.bare.down()
}

// TestPowerLossExt4 is TestPowerLoss on unchanged ext4, whose disk loses its power.
func TestPowerLossExt4(t *testing.T) {
	t.Parallel()
	o := newOutageExt4(t)
	o.rounds(1, 8)
}

// TestPowerLossExt4Liar is the control: a disk that answers flushes without flushing.
func TestPowerLossExt4Liar(t *testing.T) {
	t.Parallel()
	o := newOutageExt4(t)
	if err := o.begin(); err != nil {
		t.Fatal(err)
	}
	o.disk.SetOptions(powerloss.Options{Lies: true})
	o.wantFoundOut()
}

func newOutageExt4(t *testing.T) *outage {
	o := newOutage(t, powerloss.Options{})
	o.ground = newOnDisk(t, o.d.Backing)
	return o
}
