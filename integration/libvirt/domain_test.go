package libvirt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// startSeconds is how long a domain by KVM may take to start before it is emulated.
const startSeconds = "20"

// diskSize is that of every guest's disk.
const diskSize = 8 << 20

// domain is a virtual machine that libvirt runs.
type domain struct {
	*host
	name string
}

// disk is the first disk of a domain: a volume and how QEMU is to use it.
type disk struct{ name, format, cache, io string }

const domainXML = `<domain type='%s'>
<name>%s</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type machine='pc'>hvm</type><boot dev='hd'/></os>
<devices>
<disk type='file' device='disk'>
<driver name='qemu' type='%s' cache='%s' io='%s' discard='unmap'/>
<source file='%s'/><target dev='vda' bus='virtio'/>
</disk>
<serial type='file'><source path='%s'/></serial>
<memballoon model='none'/>
</devices>
</domain>
`

// newDomain defines and starts a domain over a disk: by KVM where that works, else
// emulated. Its console is a log beside its disk.
func newDomain(t *testing.T, h *host, name string, guest disk) *domain {
	t.Helper()
	d := &domain{h, name}
	if _, err := os.Stat("/dev/kvm"); err == nil {
		d.define("kvm", guest)
		r := mounttest.Run(t, nil, "timeout", startSeconds, "virsh", "--quiet", "start", name)
		if r.Code == 0 {
			return d
		}
		t.Logf("not by KVM: %v", r)
		mounttest.Run(t, nil, "virsh", "--quiet", "destroy", name) // it may be starting yet
	}
	d.define("qemu", guest)
	d.virsh("start", name)
	return d
}

// define tells libvirt what the domain is.
func (d *domain) define(kind string, guest disk) {
	d.T.Helper()
	file := filepath.Join(d.T.TempDir(), d.name+".xml")
	text := fmt.Sprintf(domainXML, kind, d.name, guest.format, guest.cache, guest.io, d.Path(guest.name), d.Path(d.name+"-console.log"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		d.T.Fatal(err)
	}
	d.virsh("define", file)
}

// install writes the guest to a volume, by QEMU's driver of its format.
func (h *host) install(d disk) {
	h.T.Helper()
	raw := filepath.Join(h.T.TempDir(), "boot.raw")
	if err := errors.Join(os.WriteFile(raw, sector(0), 0o600), os.Truncate(raw, diskSize)); err != nil {
		h.T.Fatal(err)
	}
	mounttest.Tool(h.T, "qemu-img", "convert", "-n", "-f", "raw", "-O", d.format, raw, h.Path(d.name))
}

// source is the file that is the domain's disk now.
func (d *domain) source() string {
	d.T.Helper()
	for line := range strings.Lines(d.virsh("domblklist", d.name)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "vda" {
			return fields[1]
		}
	}
	d.T.Fatalf("%s has no disk vda", d.name)
	return ""
}

func (d *domain) wantSource(when, name string) {
	d.T.Helper()
	if got := d.source(); got != d.Path(name) {
		d.T.Errorf("%s: the disk is %s, want %s", when, got, d.Path(name))
	}
}

// writes is how many writes QEMU has answered since it started.
func (d *domain) writes() (int, error) {
	d.T.Helper()
	for line := range strings.Lines(d.virsh("domblkstat", d.name, "vda")) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[1] == "wr_req" {
			return strconv.Atoi(fields[2])
		}
	}
	return 0, errors.New("domblkstat tells no wr_req")
}

// progress waits until the guest has written n sectors more.
func (d *domain) progress(n int) {
	d.T.Helper()
	start, err := d.writes()
	if err != nil {
		d.T.Fatal(err)
	}
	mounttest.Eventually(d.T, fmt.Sprintf("%d writes of the guest", n), mounttest.Patience, func() error {
		if now, err := d.writes(); err != nil || now < start+n {
			return fmt.Errorf("%d: %v", now-start, err)
		}
		return nil
	})
}

// check lets the guest write, pauses it, and looks for all that it wrote, on the file that
// is its disk now. It gives how much that is.
func (d *domain) check(format string) uint32 {
	d.T.Helper()
	d.progress(10)
	d.virsh("suspend", d.name)
	n := written(d.T, format, d.source())
	d.virsh("resume", d.name)
	return n
}

// wantUser checks as whom QEMU runs.
func (d *domain) wantUser() {
	d.T.Helper()
	pid, err := os.ReadFile("/run/libvirt/qemu/" + d.name + ".pid")
	if err != nil {
		d.T.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+strings.TrimSpace(string(pid)), &st); err != nil {
		d.T.Fatal(err)
	}
	if got := d.owner(st.Uid); got != "qemu" {
		d.T.Errorf("QEMU runs as %s, want libvirt-qemu", got)
	}
}
