package libvirt

import (
	"os"
	"testing"

	"vmcryptfs/integration/tally"
)

// TestLife is a domain from definition to the removal of its storage.
func TestLife(t *testing.T) {
	h := newHost(t)
	h.makePool()
	guest := disk{name: "vm.raw", format: "raw", cache: "none", io: "native"}
	h.makeVolume(guest.name, guest.format)
	h.install(guest)
	d := newDomain(t, h, "vm", guest)
	d.wantUser()
	files := map[string]string{"vm.raw": "encrypted qemu", "vm-console.log": "empty qemu"}
	h.wantFiles("start", files)

	files["vm.snap1"] = "encrypted qemu"
	last := snapshotAndCommit(d, guest, files)

	d.virsh("blockcopy", d.name, "vda", h.Path("vm-copy.qcow2"), "--format", "qcow2", "--transient-job", "--wait", "--pivot")
	d.wantSource("blockcopy", "vm-copy.qcow2")
	files["vm.raw"], files["vm-copy.qcow2"] = "encrypted root", "encrypted qemu"
	h.wantFiles("blockcopy", files)
	last = wantMore(d, "qcow2", last)

	last = dumpSaveRestore(d, files, last)

	d.virsh("snapshot-create-as", d.name, "full", "--memspec", "file="+h.Path("vm.vmsn")+",snapshot=external",
		"--diskspec", "vda,file="+h.Path("vm-full.qcow2"))
	files["vm.vmsn"], files["vm-full.qcow2"] = "encrypted root", "encrypted qemu"
	h.wantFiles("a snapshot with memory", files)
	h.wantSecret("vm.vmsn", marker)
	wantMore(d, "qcow2", last)

	d.virsh("destroy", d.name)
	h.virsh("pool-refresh", pool)
	d.virsh("undefine", d.name, "--remove-all-storage", "--snapshots-metadata")
	h.Absent("vm-full.qcow2")
	h.removeVolumes("vm.raw", "vm-copy.qcow2", "vm.dump", "vm.save", "vm.vmsn", "vm-console.log")
	h.wantFiles("undefine", nil)
	left, err := os.ReadDir(h.Backing)
	if err != nil || len(left) != 1 {
		t.Errorf("BACKING holds %v (%v), want only the program's own directory", left, err)
	}
	tally.Add(t, "libvirt commands", 24)
}

// snapshotAndCommit takes an external snapshot, lets the guest continue in the snapshot, and
// commits the snapshot into the disk below.
func snapshotAndCommit(d *domain, guest disk, files map[string]string) uint32 {
	d.T.Helper()
	d.virsh("snapshot-create-as", d.name, "snap1", "--disk-only", "--atomic")
	d.wantSource("snapshot", "vm.snap1")
	d.wantFiles("snapshot", files)
	before := d.check("qcow2")
	if before == 0 {
		d.T.Error("the guest has written nothing")
	}
	d.wantSecret("vm.snap1", marker)
	d.virsh("blockcommit", d.name, "vda", "--active", "--pivot", "--wait")
	d.wantSource("blockcommit", guest.name)
	files["vm.snap1"] = "encrypted root"
	d.wantFiles("blockcommit", files)
	d.virsh("snapshot-delete", d.name, "snap1", "--metadata")
	d.removeVolumes("vm.snap1")
	delete(files, "vm.snap1")
	return wantMore(d, guest.format, before)
}

// wantMore checks that the guest continued from its last position.
func wantMore(d *domain, format string, before uint32) uint32 {
	d.T.Helper()
	now := d.check(format)
	if now <= before {
		d.T.Errorf("the guest has written %d sectors, %d before", now, before)
	}
	return now
}

// dumpSaveRestore writes the guest's memory to the mount in libvirt's two ways, and lets the
// guest continue from one of the files.
func dumpSaveRestore(d *domain, files map[string]string, last uint32) uint32 {
	d.T.Helper()
	d.virsh("dump", d.name, d.Path("vm.dump"), "--memory-only")
	files["vm.dump"] = "encrypted root"
	d.wantFiles("dump", files)
	d.wantSecret("vm.dump", marker)

	d.virsh("save", d.name, d.Path("vm.save"))
	// Files return to their owners from before the domain's start.
	files["vm-copy.qcow2"], files["vm-console.log"], files["vm.save"] = "encrypted root", "empty root", "encrypted root"
	d.wantFiles("save", files)
	d.wantSecret("vm.save", marker)
	saved := written(d.T, "qcow2", d.Path("vm-copy.qcow2"))
	if saved < last {
		d.T.Errorf("%d sectors in the disk of a saved guest, %d before", saved, last)
	}
	d.virsh("restore", d.Path("vm.save"))
	files["vm-copy.qcow2"], files["vm-console.log"] = "encrypted qemu", "empty qemu"
	d.wantFiles("restore", files)
	return wantMore(d, "qcow2", saved)
}
