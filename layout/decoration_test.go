package layout

import (
	"strings"
	"testing"
)

func TestBaseName(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"a.log", "a.log"},
		{"A.LOG", "a.log"},
		{"/vmfs/volumes/x.vmx/disk.vmdk", "disk.vmdk"},
		{"vm.vmx/", "vm.vmx"},
		{"vm.vmx//", "vm.vmx"},

		{"a.log~", "a.log"},
		{"a.log.tmp", "a.log"},
		{"a.log.temp", "a.log"},
		{"a.log.bak", "a.log"},
		{"a.log.new", "a.log"},
		{"a.log.old", "a.log"},
		{"a.log.part", "a.log"},
		{"a.log.filepart", "a.log"},
		{"a.log.TMP", "a.log"},
		{"a.log.FilePart", "a.log"},
		{"a.log.tmp~.BAK.new", "a.log"},
		{"a.log~~~", "a.log"},
		{"a.tmp.log", "a.tmp.log"},
		{"a~.log", "a~.log"},
		{"a.logtmp", "a.logtmp"},
		{"a.tmp5", "a.tmp5"},
		{"a.backup", "a.backup"},

		{".a.vmx.swp", "a.vmx"},
		{".a.vmx.swo", "a.vmx"},
		{".a.vmx.swa", "a.vmx"},
		{".a.vmx.swx", "a.vmx"},
		{".A.VMX.SWP", "a.vmx"},
		{".a.vmx.swp~", "a.vmx"},
		{".a.vmx~.swp", "a.vmx"},
		{"..vmx.swp", ".vmx"},
		{".vmx.swp", "vmx"},
		{"a.vmx.swp", "a.vmx.swp"},   // no editor's: an editor's has a leading dot
		{".a.vmx.swq", ".a.vmx.swq"}, // vim does not go there
		{".a.vmx.swpp", ".a.vmx.swpp"},
		{".a.vswp", ".a.vswp"},
		{".swp", ".swp"},
		{"..swp", "..swp"},

		{".a.log.aB3dE9", "a.log"},
		{".a.log.aBcDeF", "a.log"},
		{".a.log.abcdE1", "a.log"},
		{".a.log.abcde1", "a.log"},
		{".a.log.ABCDE1", "a.log"},
		{".a.log.123456", "a.log"},
		{".a.log.abcdef", ".a.log.abcdef"},
		{".a.log.ABCDEF", ".a.log.abcdef"},
		{".a.log.aB3dE", ".a.log.ab3de"},
		{".a.log.aB3dE99", ".a.log.ab3de99"},
		{".a.log.aB_dE9", ".a.log.ab_de9"},
		{".a.log.aB\xc3\xa9E9", ".a.log.ab\xc3\xa9e9"},
		{"a.log.aB3dE9", "a.log.ab3de9"},
		{".a.logaB3dE9", ".a.logab3de9"},
		{"..log.aB3dE9", ".log"},
		{".log.aB3dE9", "log"},
		{"..a.log.aB3dE9.xY1zW2", "a.log"},
		{"..a.vmx.swp.aB3dE9", "a.vmx"},

		// Nothing but decoration: the last piece stays.
		{"~", "~"}, {"~~", "~"}, {".tmp", ".tmp"}, {".tmp.bak", ".tmp"}, {".filepart~", ".filepart"},
		{"..aB3dE9", "..ab3de9"}, {".aB3dE9", ".ab3de9"},
		{"", ""}, {"/", ""}, {".", "."}, {"..", ".."},

		{"a\xff.LOG~", "a\xff.log"},
		{"Ä.LOG", "Ä.log"},             // ASCII alone is folded
		{"a.lc\u212a", "a.lc\u212a"},   // Kelvin sign
		{"a.\u017fock", "a.\u017fock"}, // long s
		{strings.Repeat("x", 250) + ".log~", strings.Repeat("x", 250) + ".log"},
		{strings.Repeat("~", 255), "~"},
	} {
		if got := baseName(c.name); got != c.want {
			t.Errorf("baseName(%q) = %q, want %q", c.name, got, c.want)
		}
	}
}
