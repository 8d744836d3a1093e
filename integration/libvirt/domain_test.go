package libvirt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vmcryptfs/integration/mounttest"
)

// diskSize is the size of every guest's disk in bytes.
const diskSize = 8 << 20

// domain is a virtual machine under libvirt.
type domain struct {
	*host
	name string
}

// disk is the first disk of a domain: a volume, and QEMU's way of using the volume.
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

// newDomain defines and starts a domain over a disk. The console is a log beside the disk.
func newDomain(t *testing.T, h *host, name string, guest disk) *domain {
	t.Helper()
	accelerator, why := accelerator()
	t.Logf("%s runs by %s (%v)", name, accelerator, why)
	d := &domain{h, name}
	d.define(domainTypes[accelerator], guest)
	d.virsh("start", name)
	return d
}

// define defines the domain in libvirt.
func (d *domain) define(kind string, guest disk) {
	d.T.Helper()
	file := filepath.Join(d.T.TempDir(), d.name+".xml")
	text := fmt.Sprintf(domainXML, kind, d.name, guest.format, guest.cache, guest.io, d.Path(guest.name), d.Path(d.name+"-console.log"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		d.T.Fatal(err)
	}
	d.virsh("define", file)
}

// install writes the guest to a volume, by QEMU's driver of the volume's format.
func (h *host) install(d disk) {
	h.T.Helper()
	raw := filepath.Join(h.T.TempDir(), "boot.raw")
	if err := makeDisk(raw); err != nil {
		h.T.Fatal(err)
	}
	mounttest.Tool(h.T, "qemu-img", "convert", "-n", "-f", "raw", "-O", d.format, raw, h.Path(d.name))
}

// makeDisk makes a raw disk with the guest.
func makeDisk(path string) error {
	return errors.Join(os.WriteFile(path, sector(0), 0o600), os.Truncate(path, diskSize))
}

// source returns the present file of the domain's disk.
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

// writes returns the number of writes answered by QEMU since the start.
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

// check lets the guest write, pauses the guest, and searches all written sectors on the disk's
// present file. check returns the number of writes.
func (d *domain) check(format string) uint32 {
	d.T.Helper()
	d.progress(10)
	d.virsh("suspend", d.name)
	n := written(d.T, format, d.source())
	d.virsh("resume", d.name)
	return n
}

// wantUser checks that QEMU runs as the user for whom the accelerator was chosen.
func (d *domain) wantUser() {
	d.T.Helper()
	want, err := qemuCredential()
	if err != nil {
		d.T.Fatal(err)
	}
	pid, err := os.ReadFile("/run/libvirt/qemu/" + d.name + ".pid")
	if err != nil {
		d.T.Fatal(err)
	}
	status, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/status")
	if err != nil {
		d.T.Fatal(err)
	}
	ids := func(field string) (all []uint32) {
		_, rest, _ := strings.Cut(string(status), "\n"+field+":")
		line, _, _ := strings.Cut(rest, "\n")
		for _, text := range strings.Fields(line) {
			id, err := strconv.ParseUint(text, 10, 32)
			if err != nil {
				d.T.Fatal(err)
			}
			all = append(all, uint32(id))
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	groups := slices.Compact(slices.Sorted(slices.Values(want.Groups)))
	for field, want := range map[string][]uint32{"Uid": {want.Uid}, "Gid": {want.Gid}, "Groups": groups} {
		if got := ids(field); !slices.Equal(got, want) {
			d.T.Errorf("QEMU runs with %s %v, want %v", field, got, want)
		}
	}
}
