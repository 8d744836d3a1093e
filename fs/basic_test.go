package fs

import (
	"testing"
)

// TestClasses: what is written under each kind of name reads back, also after a remount,
// and lies in BACKING in the form of its class.
func TestClasses(t *testing.T) {
	r := newRig(t, nil)
	want := map[string]string{
		"vm.vmx":       "clear",
		"vmware.log":   "clear",
		"vm.xml":       "clear",
		"vm-flat.vmdk": "encrypted",
		"vm.vswp":      "encrypted",
		"vm.nvram":     "encrypted",
		"disk.qcow2":   "encrypted",
		"core.1234":    "encrypted",
		"unknown":      "encrypted",
		"sparse.vmdk":  "encrypted",
		"unattend.xml": "encrypted",
		"vm.vmx~":      "clear",
		"vm.vswp.tmp":  "encrypted",
	}
	for name := range want {
		r.write(name, "content of "+name)
	}
	check := func() {
		for name, form := range want {
			r.wantRead(name, "content of "+name)
			r.wantForm(name, form)
		}
	}
	check()
	r.remount()
	check()
}
