package vm

import (
	"fmt"
	"testing"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// formatted boots a guest with one new disk, mounted by the guest at /mnt/0.
func formatted(t *testing.T, disk drive, args ...string) *machine {
	t.Helper()
	m := boot(t, []drive{disk}, args...)
	m.run("mkfs.ext4 -q /dev/vdb", "mkdir /mnt/0", "mount -t ext4 /dev/vdb /mnt/0")
	return m
}

// verified checks the file system on the disk and reads load's files there; by another guest, if
// there is time for one. verified ends the guest.
func verified(t *testing.T, m *machine, disk drive) {
	t.Helper()
	m.run("umount /mnt/0")
	if tally.Slow() {
		m.powerOff()
		m = boot(t, []drive{disk})
	}
	m.run("e2fsck -fn /dev/vdb", "mkdir -p /mnt/0 && mount -t ext4 /dev/vdb /mnt/0",
		load("/mnt/0")+" --verify_only=1", "umount /mnt/0")
	m.powerOff()
}

var qcow2, raw, bare = kinds[3], kinds[4], kinds[1]

// TestMigrateToFile suspends a guest in the middle of a load, saves the guest with all its memory
// and resumes the guest in another QEMU, where the load continues.
func TestMigrateToFile(t *testing.T) {
	t.Parallel()
	d := mounttest.New(t)
	disk := bare.create(t, d.Mnt, modes[1])
	m := formatted(t, disk)
	m.run("echo remembered >/tmp/memory")
	// The command ends in the other QEMU, even where the load is over before the stop.
	m.underWay(load("/mnt/0")+" && read -r line", d.Below(bare.data))
	state := d.Path("guest.vmss")
	// Stopped first, as by libvirt's save: QEMU before 9.0 loses writes of an emulated guest that
	// continues during the migration.
	m.command("stop", nil)
	m.command("migrate", arguments{"uri": "exec:cat >" + state})
	m.migrated()
	m.command("quit", nil)
	m.awaitEnd()
	d.WantForms(map[string]string{"guest.vmss": "encrypted"})

	d.Remount()
	m = launch(t, []drive{disk}, "-incoming", "exec:cat "+state)
	m.arrived()
	m.command("cont", nil)
	m.tell("go on")
	m.finish()
	if got := m.run("cat /tmp/memory"); got != "remembered\n" {
		t.Errorf("the resumed guest remembers %q", got)
	}
	verified(t, m, disk)
}

// TestSaveState saves a guest's disk and memory at one moment, the memory to a .vmsn file
// beside the disk, and brings both back, in another QEMU.
func TestSaveState(t *testing.T) {
	t.Parallel()
	d := mounttest.New(t)
	memory := d.Path("guest.vmsn")
	mounttest.Tool(t, "qemu-img", "create", "-q", "-f", "qcow2", memory, "1M")
	withMemory := []string{"-drive", "if=none,id=state,node-name=memory,format=qcow2,cache=none,aio=native,file=" + memory}
	disk := qcow2.create(t, d.Mnt, modes[1])
	m := formatted(t, disk, withMemory...)
	m.run("echo then | tee /tmp/memory >/mnt/0/disk && sync")
	nodes := arguments{"job-id": "save", "tag": "one", "vmstate": "memory", "devices": []string{"memory", disk.node()}}
	m.job("snapshot-save", nodes)
	m.run("echo later | tee /tmp/memory >/mnt/0/disk && sync", load("/mnt/0"))
	m.command("quit", nil)
	m.awaitEnd()
	d.WantForms(map[string]string{"guest.vmsn": "encrypted", "disk.qcow2": "encrypted"})
	if stored(t, d.Below("guest.vmsn")) < 8<<20 {
		t.Error("guest.vmsn holds no guest's memory")
	}

	d.Remount()
	m = launch(t, []drive{disk}, append(withMemory, "-S")...)
	nodes["job-id"] = "load"
	m.job("snapshot-load", nodes)
	m.command("cont", nil)
	if got := m.run("cat /tmp/memory /mnt/0/disk"); got != "then\nthen\n" {
		t.Errorf("after the snapshot was loaded the guest's memory and disk hold %q", got)
	}
	m.run(load("/mnt/0"))
	verified(t, m, disk)
	mounttest.Tool(t, "qemu-img", "check", disk.path)
}

// TestLiveMirror moves a disk from a plain directory into the mount, and there takes and
// commits a snapshot, under a guest's load.
func TestLiveMirror(t *testing.T) {
	t.Parallel()
	d := mounttest.New(t)
	disk := raw.create(t, t.TempDir(), modes[1])
	m := formatted(t, disk)
	target := drive{id: disk.id, path: d.Path("moved-flat.vmdk"), format: "raw", mode: disk.mode}
	m.begin(load("/mnt/0"))
	m.command("drive-mirror", arguments{"device": disk.id, "target": target.path, "format": "raw", "sync": "full", "mode": "absolute-paths"})
	m.event("BLOCK_JOB_READY", disk.id)
	m.command("block-job-complete", arguments{"device": disk.id})
	m.event("BLOCK_JOB_COMPLETED", disk.id)
	m.finish()

	overlay := d.Path("moved-000001.qcow2")
	m.begin(load("/mnt/0"))
	m.command("blockdev-snapshot-sync", arguments{"device": disk.id, "snapshot-file": overlay, "format": "qcow2"})
	m.finish()
	m.run("dd if=/dev/urandom of=/mnt/0/after bs=1M count=3 oflag=direct") // the load may have been over
	if stored(t, d.Below("moved-000001.qcow2")) < 2<<20 {
		t.Error("what was written after the snapshot is not in its overlay")
	}
	m.begin(load("/mnt/0"))
	m.command("block-commit", arguments{"device": disk.id})
	m.event("BLOCK_JOB_READY", disk.id)
	m.command("block-job-complete", arguments{"device": disk.id})
	m.event("BLOCK_JOB_COMPLETED", disk.id)
	m.finish()
	d.WantForms(map[string]string{"moved-flat.vmdk": "encrypted", "moved-000001.qcow2": "encrypted"})
	verified(t, m, target)
}

// migrated waits for the end of a migration.
func (m *machine) migrated() {
	m.t.Helper()
	mounttest.Eventually(m.t, "the migration completes", patience, func() error {
		var now struct{ Status, Desc string }
		m.query("query-migrate", &now)
		switch now.Status {
		case "completed":
			return nil
		case "failed":
			m.t.Fatalf("the migration failed: %s", now.Desc)
		}
		return fmt.Errorf("it is %s", now.Status)
	})
}

// arrived waits for a guest started with -incoming.
func (m *machine) arrived() {
	m.t.Helper()
	mounttest.Eventually(m.t, "the guest arrives", patience, func() error {
		var now struct{ Status string }
		m.query("query-status", &now)
		if now.Status != "paused" {
			return fmt.Errorf("it is %s", now.Status)
		}
		return nil
	})
}
