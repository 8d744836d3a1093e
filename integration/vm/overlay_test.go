package vm

import (
	"strings"
	"testing"

	"vmcryptfs/integration/mounttest"
)

// TestOverlays makes snapshots as files over files, with no guest: writes to the newest, moves
// the newest onto another base and commits the newest into the base.
func TestOverlays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, format, base, baseFormat string }{
		{"qcow2 over raw", "qcow2", "base-flat.vmdk", "raw"},
		{"qcow2 over qcow2", "qcow2", "base.qcow2", "qcow2"},
		{"vmdk over vmdk", "vmdk", "base.vmdk", "vmdk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := mounttest.New(t)
			o := overlays{t, d, c.format, c.baseFormat}
			base, first, second := d.Path(c.base), d.Path("vm-000001."+c.format), d.Path("vm-000002."+c.format)
			mounttest.Tool(t, "qemu-img", "create", "-q", "-f", c.baseFormat, base, "16M")
			o.io(base, c.baseFormat, "write -P 1 0 4M")
			o.over(base, c.baseFormat, first)
			o.io(first, c.format, "write -P 2 1M 1M")
			o.over(first, c.format, second)
			o.io(second, c.format, "write -P 3 2M 512")
			all := []string{"read -P 1 0 1M", "read -P 2 1M 1M", "read -P 3 2M 512", "read -P 1 2097664 2096640", "read -P 0 4M 12M"}
			d.Remount()
			o.io(second, c.format, all...)
			d.WantForms(map[string]string{c.base: "encrypted", "vm-000001." + c.format: "encrypted", "vm-000002." + c.format: "encrypted"})

			// QEMU cannot rebase a VMDK, so a VMDK is committed twice.
			if c.format == "qcow2" {
				mounttest.Tool(t, "qemu-img", "rebase", "-f", c.format, "-b", base, "-F", c.baseFormat, second)
				o.io(second, c.format, all...)
				mounttest.Tool(t, "qemu-img", "commit", "-q", "-f", c.format, second)
			} else {
				mounttest.Tool(t, "qemu-img", "commit", "-q", "-f", c.format, second)
				mounttest.Tool(t, "qemu-img", "commit", "-q", "-f", c.format, first)
			}
			d.Remount()
			o.io(base, c.baseFormat, all...)
		})
	}
}

type overlays struct {
	t                  testing.TB
	d                  *mounttest.Datastore
	format, baseFormat string
}

// over makes an empty overlay.
func (o overlays) over(base, baseFormat, overlay string) {
	o.t.Helper()
	mounttest.Tool(o.t, "qemu-img", "create", "-q", "-f", o.format, "-b", base, "-F", baseFormat, overlay)
}

func (o overlays) io(path, format string, commands ...string) {
	o.t.Helper()
	argv := []string{"qemu-io", "-f", format, "-t", "none", "-i", "native"}
	for _, c := range commands {
		argv = append(argv, "-c", c)
	}
	// qemu-io exits 0 even when a pattern differs from the bytes read.
	if out := mounttest.Tool(o.t, append(argv, path)...); strings.Contains(out, "failed") {
		o.t.Fatalf("%s:\n%s", path, out)
	}
}
