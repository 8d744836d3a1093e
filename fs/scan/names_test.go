package scan

import (
	"strings"
	"testing"

	"vmcryptfs/layout"
)

// TestLeftBy: the program of each name, and names of nobody's.
func TestLeftBy(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		".web01.vmx.swp": "vi", ".web01.vmx.swo": "vi", ".a.swx": "vi", "sysSwap-host.swp": "", ".swp": "", "web01.vswp": "",
		".web01-flat.vmdk.Ab3dE6": "rsync", ".web01-flat.vmdk.backup": "", ".a.123456": "rsync", "web01-flat.vmdk.Ab3dE6": "",
		"web01.vmx~": "editor", "~": "", "a~": "editor", "~a": "",
		"#web01.vmx#": "emacs", "##": "", "#": "", "#a": "", "#a#": "emacs",
		".#web01.vmx": "CVS", ".#": "",
		"4913": "vim", "5036": "vim", "5159": "vim", "4914": "", "04913": "", "491a": "", "0123": "",
		".nfs00000000000a1b2c00000001": "NFS", ".nfs": "", ".nfs12": "", ".nfs00000000000a1b2c0000000g": "",
		".fuse_hidden0000000500000001": "FUSE", ".fuse_hidden": "", ".fuse_hiddenfile": "",
		"": "", ".": "", "web01-flat.vmdk": "", "web01.vmx.bak": "", "vmware.log": "", "disk.tmp": "",
	} {
		got := leftBy(name)
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("leftBy(%q) = %q, want %q", name, got, want)
		}
	}
}

// FuzzNames: no name makes the judges of names fail, no name is of two kinds, and what a name says leads
// back to it.
func FuzzNames(f *testing.F) {
	for _, name := range []string{
		"", ".", "#", "4913", ".a.swp", ".a.Ab3dE6", "a~", ".nfs0123456789abcdef", layout.PlaceTag, layout.MoveName(layout.FileID{1}),
		layout.GoneName(layout.FileID{1}), layout.TemporaryPrefix("0123456789abcdef"), "\xff\xfe", strings.Repeat(".", 255),
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if leftBy(name) != "" && len(name) < 2 {
			t.Errorf("%q is nobody's", name)
		}
		kinds := 0
		if host, ok := layout.ParseTemporary(name); ok {
			kinds++
			if !strings.HasPrefix(name, layout.TemporaryPrefix(host)) {
				t.Errorf("%q is of host %q", name, host)
			}
		}
		if id, gone, ok := layout.ParseMoveName(name); ok && name != layout.MoveName(id) && name != layout.GoneName(id) {
			t.Errorf("%q is of move %v, %t", name, id, gone)
		}
		if _, _, ok := layout.ParseMoveName(name); ok {
			kinds++
		}
		if name == layout.PlaceTag {
			kinds++
		}
		if kinds > 1 {
			t.Errorf("%q is of %d kinds", name, kinds)
		}
		if kinds == 1 && !layout.Reserved(name) {
			t.Errorf("%q is the program's, and not reserved", name)
		}
	})
}
