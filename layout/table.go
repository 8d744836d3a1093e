package layout

// Digits for patterns: N of docs/on-disk-format.md is one to three, D is eight.
const (
	n1 = "[0-9]"
	n2 = n1 + n1
	n3 = n2 + n1
	d8 = n3 + n3 + n2
)

// A rule is one line of the table of design §4.
type rule struct {
	number   int
	class    Class
	about    string
	patterns []string // globs of path.Match in lower case
	rotated  bool     // also every name accepted by isRotatedLog
	packed   bool     // also with one of the compressors' endings
}

var compressors = [...]string{".gz", ".xz", ".bz2", ".zst"}

const aboutDumps = "core dumps"

// builtin is the table of rules: the first rule with a matching pattern decides. The clear rules
// are short and exact, since doubt means encrypt.
var builtin = [...]rule{
	{number: 1, class: Encrypt, about: "passwords", patterns: []string{
		"*unattend*", "*autoinst*", "*autoyast*", "*sysprep*",
	}},
	{number: 2, class: Clear, about: "logs", rotated: true, packed: true, patterns: []string{
		"*.log", "*.log." + n1, "*.log." + n2, "*.log." + n3, "*.log-" + d8,
	}},
	{number: 3, class: Clear, about: "configuration", patterns: []string{
		"*.vmx", "*.vmx." + n1, "*.vmx." + n2, "*.vmx." + n3,
		"*.vmxf", "*.vmxf." + n1, "*.vmxf." + n2, "*.vmxf." + n3,
		"*.vmsd", "*.vmtx", "*.vmpl", "*.vmtm", "*.vmcx", "*.ovf", "*.mf", "*.cert",
		"*.vbox", "*.vbox-prev", "*.vbox-tmp", "*.pvs", "*.xml",
	}},
	{number: 4, class: Clear, about: "locks", patterns: []string{
		"*.lck", ".lck-*", "*.pid", "*.sock",
	}},
	{number: 5, class: Encrypt, about: "disks", patterns: []string{
		"*-flat.vmdk", "*-delta.vmdk", "*-sesparse.vmdk", "*-ctk.vmdk", "*-rdm.vmdk",
		"*-rdmp.vmdk", "*-[sf]" + n3 + ".vmdk",
		"*.qcow2", "*.qcow", "*.qed", "*.raw", "*.img", "*.vdi", "*.vhd", "*.vhdx",
		"*.avhd", "*.avhdx", "*.hdd", "*.hds", "*.iso", "*.flp", "*.vfd",
	}},
	{number: 6, class: Inspect, about: "descriptors or disks", patterns: []string{
		"*.vmdk",
	}},
	{number: 7, class: Encrypt, about: "memory and state", patterns: []string{
		"*.vswp", "*.vmem", "*.vmss", "*.vmsn", "*.nvram", "*.sav", "*.save", "*.vmrs",
		"*.vmgs", "*.mem", "*_vars*.fd",
	}},
	{number: 8, class: Encrypt, about: aboutDumps, patterns: []string{
		"core", "core.*", "*.core", "*.dmp", "*.dump", "vmcore*", "*-zdump*", "*.dumpfile",
	}},
}

// unknown is rule 9: a name without a match is protected.
var unknown = Verdict{Class: Encrypt, Rule: 9, About: "unknown"}

// match returns the first pattern of the rule that matches base.
func (r *rule) match(base string) (pattern string, ok bool) {
	for _, p := range r.patterns {
		if glob(p, base) {
			return p, true
		}
	}
	if r.rotated && isRotatedLog(base) {
		return rotatedLog, true
	}
	return "", false
}
