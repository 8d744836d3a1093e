package libvirt

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// TestFormats takes and commits a snapshot of running guests, round after round, over disks of
// several formats, with several of QEMU's ways to reach the disks.
func TestFormats(t *testing.T) {
	rounds := 1
	if tally.Slow() {
		rounds = 4
	}
	h := newHost(t)
	h.makePool()
	disks := []disk{
		{"a.qcow2", "qcow2", "none", "io_uring"},
		{"b.vmdk", "vmdk", "writeback", "threads"},
		{"c.vmdk", "vmdk", "none", "native"},
		{"d.raw", "raw", "directsync", "io_uring"},
	}
	if !tally.Slow() {
		disks = disks[:2]
	}
	for _, base := range disks {
		if base.name == "c.vmdk" {
			h.makeFlat(base.name)
		} else {
			h.makeVolume(base.name, base.format)
		}
		h.install(base)
		last := snapshotRounds(newDomain(t, h, "guest-"+base.name, base), base, rounds)
		if n := written(t, base.format, h.Path(base.name)); n < last {
			t.Errorf("%s: %d sectors in the disk of a guest that was ended, %d before", base.name, n, last)
		}
		tally.Add(t, "libvirt commands", 4+9*rounds)
	}
	h.wantSecret("a.qcow2", marker)
	h.wantSecret("b.vmdk", marker)
}

// snapshotRounds takes and commits snapshots of a running guest, then ends the guest. The result
// is how far the guest was seen to come.
func snapshotRounds(d *domain, base disk, rounds int) uint32 {
	d.T.Helper()
	last := d.check(base.format)
	for range rounds {
		d.virsh("snapshot-create-as", d.name, "over", "--disk-only", "--no-metadata", "--diskspec", "vda,file="+d.Path("over.qcow2"))
		last = wantMore(d, "qcow2", last)
		d.virsh("blockcommit", d.name, "vda", "--active", "--pivot", "--wait")
		last = wantMore(d, base.format, last)
		d.removeVolumes("over.qcow2")
	}
	d.virsh("destroy", d.name)
	return last
}

// makeFlat makes a VMDK of a descriptor and a flat extent, a form without a name in virsh.
// libvirt gives QEMU's user the descriptor and does not know of the extent.
func (h *host) makeFlat(name string) {
	h.T.Helper()
	mounttest.Tool(h.T, "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", h.Path(name), fmt.Sprint(diskSize))
	uid, err := strconv.Atoi(h.qemu.Uid)
	if err != nil {
		h.T.Fatal(err)
	}
	extent := name[:len(name)-len(".vmdk")] + "-flat.vmdk"
	if err := os.Chown(h.Path(extent), uid, -1); err != nil {
		h.T.Fatal(err)
	}
	h.WantForms(map[string]string{name: "clear", extent: "encrypted"})
}
