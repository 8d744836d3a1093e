package vm

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// TestDaemonStops: the daemon is stopped under a guest's load. The guest waits for its disk,
// without an error, and continues with the daemon. The key server is away from before the guest's
// boot until the guest's end.
func TestDaemonStops(t *testing.T) {
	t.Parallel()
	s := mounttest.StartKMS(t)
	d := mounttest.NewServed(t, s)
	disk := bare.create(t, d.Mnt, modes[0])
	s.Stop()
	m := formatted(t, disk)
	m.underWay(load("/mnt/0")+" >/tmp/load 2>&1 & load=$!", d.Below(bare.data))
	m.finish()
	stop(t, d, m)
	m.run("wait $load || { cat /tmp/load; false; }")
	if complaints := m.run("dmesg | grep -c -i -e 'i/o error' -e blocked -e hung || true"); complaints != "0\n" {
		t.Errorf("the guest's kernel complains: %s", m.run("dmesg"))
	}
	verified(t, m, disk)
	if io := d.Status().IO; io.NoKey != 0 || io.Damaged != 0 {
		t.Errorf("status counts %d files without a key, %d damaged", io.NoKey, io.Damaged)
	}
}

// stop stops the daemon for a while; the guest's write must not be answered meanwhile.
func stop(t *testing.T, d *mounttest.Datastore, m *machine) {
	t.Helper()
	pause := 3 * time.Second
	if tally.Slow() {
		pause = 20 * time.Second
	}
	if err := unix.Kill(d.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(d.PID, unix.SIGCONT) }()
	m.begin("dd if=/dev/zero of=/mnt/0/waits bs=64k count=1 oflag=direct")
	if said, err := m.await("guest: exit ", pause); err == nil {
		t.Errorf("a write was answered with the daemon stopped:\n%s", said)
	} else if !errors.Is(err, errSilent) {
		t.Fatal(err)
	}
	if err := unix.Kill(d.PID, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	m.finish()
}
