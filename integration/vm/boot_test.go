package vm

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// TestDisks lets guests work on disks of every format, with every cache mode, and read the disks
// again after a reboot and a remount. The guests write to a second set of disks on plain ext4
// too: both sets must be equal, byte for byte.
func TestDisks(t *testing.T) {
	t.Parallel()
	if tally.Slow() {
		for _, m := range modes {
			t.Run(m.String(), func(t *testing.T) { testDisks(t, []mode{m, m, m, m, m}) })
		}
		return
	}
	testDisks(t, []mode{modes[0], modes[1], modes[2], modes[1], modes[0]})
}

// testDisks gives kinds[i] the mode of[i].
func testDisks(t *testing.T, of []mode) {
	d := mounttest.New(t)
	plain := filepath.Join(t.TempDir(), "plain")
	mounttest.Tool(t, "mkdir", plain)
	var both, ours []drive
	var dirs []string
	for i, k := range kinds {
		disk := k.create(t, d.Mnt, of[i])
		ours = append(ours, disk)
		both = append(both, disk, k.create(t, plain, of[i]))
		dirs = append(dirs, fmt.Sprintf("/mnt/%d", i))
	}

	m := boot(t, both)
	for i, dir := range dirs {
		m.run(mirror(i, 'b'+2*i), fmt.Sprintf("mkfs.ext4 -q /dev/dm-%d", i),
			fmt.Sprintf("mkdir %s && mount -t ext4 /dev/dm-%d %s", dir, i, dir))
	}
	m.run(load(dirs...))
	trim(t, d, m, dirs)
	m.run("umount /mnt/*", "dmsetup remove_all")
	m.powerOff()
	for i := range kinds {
		disk, twin := both[2*i], both[2*i+1]
		mounttest.Tool(t, "qemu-img", "compare", "-f", disk.format, "-F", disk.format, disk.path, twin.path)
	}

	d.Remount()
	m = boot(t, ours)
	for i, dir := range dirs {
		m.run(fmt.Sprintf("e2fsck -fn /dev/vd%c", 'b'+i), fmt.Sprintf("mkdir %s && mount -t ext4 /dev/vd%c %s", dir, 'b'+i, dir))
	}
	m.run(load(dirs...)+" --verify_only=1", "umount /mnt/*")
	m.powerOff()
	d.WantForms(map[string]string{
		"flat.vmdk": "clear", "flat-flat.vmdk": "encrypted", "bare.vmdk": "clear", "bare-flat.vmdk": "encrypted",
		"sparse.vmdk": "encrypted", "disk.qcow2": "encrypted", "disk.raw": "encrypted",
	})
}

// mirror returns the guest's command that makes one disk of two, /dev/dm-NUMBER: reads come from
// the first, and writes and discards go to both.
func mirror(number, first int) string {
	return fmt.Sprintf("dmsetup create %[1]d --noudevsync --noudevrules --table \"0 $(blockdev --getsz /dev/vd%[2]c) "+
		"mirror core 2 1024 nosync 2 /dev/vd%[2]c 0 /dev/vd%[3]c 0\"", number, first, first+1)
}

// trim lets the guest write, remove and trim 8 MiB on each disk, and checks BACKING for the
// bytes.
func trim(t *testing.T, d *mounttest.Datastore, m *machine, dirs []string) {
	t.Helper()
	const written, atLeast = 8 << 20, 7 << 20
	usage := func() (u []int64) {
		for _, k := range kinds {
			u = append(u, stored(t, d.Below(k.data)))
		}
		return u
	}
	before := usage()
	each := "for dir in " + strings.Join(dirs, " ") + "; do "
	m.run(each + fmt.Sprintf("dd if=/dev/urandom of=$dir/waste bs=1M count=%d 2>/dev/null || break; done && sync", written>>20))
	full := usage()
	m.run(each + "rm $dir/waste && sync && fstrim $dir || break; done")
	trimmed := usage()
	for i, k := range kinds {
		grown, returned := full[i]-before[i], full[i]-trimmed[i]
		t.Logf("%s: 8 MiB written take %d KiB in BACKING; removed and trimmed, %d KiB come back", k.name, grown>>10, returned>>10)
		if grown < atLeast {
			t.Errorf("%s: 8 MiB written take %d bytes", k.name, grown)
		}
		if k.trims && returned < atLeast {
			t.Errorf("%s: 8 MiB trimmed return %d bytes to BACKING", k.name, returned)
		}
	}
}
