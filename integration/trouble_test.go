package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	kmip "github.com/ovh/kmip-go"
	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// guest is a ceaseless load: fio writes a disk with checksums and verifies the disk, again and
// again, and each run must succeed.
type guest struct {
	runs   atomic.Int64
	stop   atomic.Bool
	failed atomic.Bool
	done   sync.WaitGroup
}

func startGuest(t *testing.T, disk string) *guest {
	g := &guest{}
	g.done.Go(func() {
		for !g.stop.Load() {
			out, err := exec.Command("fio", "--name=guest", "--filename="+disk, "--rw=randwrite", "--bs=4k", "--size=1m",
				"--direct=1", "--ioengine=libaio", "--iodepth=16", "--fdatasync=64", "--verify=crc32c", "--verify_fatal=1",
				"--verify_state_save=0", "--randrepeat=0", "--thread", "--minimal").CombinedOutput()
			if err != nil {
				t.Errorf("the guest's disk, run %d: %v\n%s", g.runs.Load(), err, out)
				g.failed.Store(true)
				return
			}
			g.runs.Add(1)
		}
	})
	return g
}

// turn waits until two more runs have ended: at least one run lay wholly within the present
// trouble.
func (g *guest) turn(t *testing.T, what string) {
	t.Helper()
	target := g.runs.Load() + 2
	mounttest.Eventually(t, "two runs of the guest while "+what, mounttest.Patience, func() error {
		if n := g.runs.Load(); n < target && !g.failed.Load() {
			return fmt.Errorf("%d runs, want %d", n, target)
		}
		return nil
	})
}

func (g *guest) end() int64 {
	g.stop.Store(true)
	g.done.Wait()
	return g.runs.Load()
}

// TestDayOfTrouble: troubles of a cluster of two key servers do not affect a running guest, nor
// files with a held key.
func TestDayOfTrouble(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	d := newServed(t, c.Server)
	d.Unmount()
	d.KMS = c
	d.Mount()
	beforeTheOutage(d)
	old := d.currentKEK()

	held, err := os.OpenFile(d.Path("a.img"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	g := startGuest(t, d.Path("guest-flat.vmdk"))
	defer g.end()
	made := 0
	step := func(what string) {
		t.Helper()
		g.turn(t, what)
		within(t, "open while "+what, keyWait, func() {
			wantSame(t, "b.img while "+what, d.Read("b.img"), []byte("content of b.img"))
		})
		made++
		d.Write(fmt.Sprintf("made-%d.img", made), []byte(what))
		if _, err := held.WriteAt([]byte("content"), 0); err != nil {
			t.Errorf("write to an open file while %s: %v", what, err)
		}
	}
	step("all is well")
	c.one.hang()
	step("server 1 hangs")
	c.two.down()
	step("server 2 is down too")
	c.one.down()
	step("both are down")
	c.one.up()
	step("server 1 is back")

	mounttest.Eventually(t, "rekey with one server", mounttest.Patience, func() error {
		if r := d.Command("rekey", d.Mnt, "--new"); r.Code != 0 {
			return errors.New(r.String())
		}
		return nil
	})
	if d.currentKEK() == old {
		t.Fatal("rekey --new left the old key current")
	}
	wantNoTrace(t, d, old)
	destroyKey(t, c, old)
	step("the old key is destroyed")
	for i := range made {
		if !strings.Contains(string(d.Read(fmt.Sprintf("made-%d.img", i+1))), " ") {
			t.Errorf("made-%d.img lost its content", i+1)
		}
	}

	runs := g.end() // the guest's next run would open its disk anew, which a lock refuses
	lockWithBothDown(t, d, c, held)
	if err := held.Close(); err != nil {
		t.Error(err)
	}
	d.verify()
	d.Remount()
	d.verify()
	t.Logf("%d verified fio runs of 1 MiB through a hung, a dead, and no key server, a rekey and a destroyed key; no error", runs)
}

// lockWithBothDown locks while no server answers: open files continue, nothing opens, unlock says
// why; with the servers back unlock succeeds.
func lockWithBothDown(t *testing.T, d *datastore, c *cluster, held *os.File) {
	t.Helper()
	c.one.down()
	d.lock(1)
	if _, err := held.ReadAt(make([]byte, 4), 0); err != nil {
		t.Errorf("read of an open file while locked: %v", err)
	}
	if err := mounttest.OpenErr(d.Path("b.img"), unix.O_RDONLY); !errors.Is(err, unix.ENOKEY) {
		t.Errorf("open b.img while locked: %v, want ENOKEY", err)
	}
	if r := d.Command("unlock", "--verbose", d.Mnt); r.Code != 3 || !strings.Contains(r.Stderr, c.one.addr) {
		t.Errorf("unlock with both servers down: want exit 3 and a server's address, %v", r)
	}
	c.one.up()
	c.two.up()
	mounttest.Eventually(t, "unlock", mounttest.Patience, func() error {
		if r := d.Command("unlock", d.Mnt); r.Code != 0 {
			return errors.New(r.String())
		}
		return nil
	})
	wantSame(t, "b.img", d.Read("b.img"), []byte("content of b.img"))
}

// destroyKey destroys a key no longer needed, as an administrator does at the key server.
func destroyKey(t *testing.T, c *cluster, id string) {
	t.Helper()
	client := kmsClient(t, c.Config())
	if _, err := client.Revoke(id).WithRevocationReasonCode(kmip.RevocationReasonCodeCessationOfOperation).ExecContext(t.Context()); err != nil {
		t.Fatalf("revoke %s: %v", id, err)
	}
	if _, err := client.Destroy(id).ExecContext(t.Context()); err != nil {
		t.Fatalf("destroy %s: %v", id, err)
	}
}

// wantNoTrace checks that no header in BACKING names a key.
func wantNoTrace(t *testing.T, d *datastore, id string) {
	t.Helper()
	entries, err := os.ReadDir(d.Backing)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		raw, err := os.ReadFile(d.Below(e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte(id)) {
			t.Errorf("%s still names key %s in BACKING", e.Name(), id)
		}
	}
}
