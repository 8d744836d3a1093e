package scan

import (
	"strings"

	"vmcryptfs/layout"
)

// leaver is a program that leaves files behind when it is killed, or when its host is.
type leaver struct {
	what string // the file, in words
	is   func(name string) bool
}

// leavers are asked in this order. Endings that people give to copies (.bak, .old) are none: such a
// file is meant, and is judged by its name without the ending.
var leavers = [...]leaver{
	{"a swap file of vi", layout.IsSwap},
	{"a temporary of rsync", layout.IsRsync},
	{"a test file of vim", isVimTest},
	{"an autosave of emacs", isAutosave},
	{"a lock or a backup of an editor or of CVS", func(name string) bool { return hasRest(name, ".#") }},
	{"a backup of an editor", func(name string) bool { return len(name) > 1 && strings.HasSuffix(name, "~") }},
	{"a file that was removed while it was open through NFS", func(name string) bool { return isHidden(name, ".nfs") }},
	{"a file that was removed while it was open through FUSE", func(name string) bool { return isHidden(name, ".fuse_hidden") }},
}

// leftBy says in words what kind of leftover a name is; empty: none that is known.
func leftBy(name string) string {
	for i := range leavers {
		if leavers[i].is(name) {
			return leavers[i].what
		}
	}
	return ""
}

// hasRest reports whether name is prefix and something more.
func hasRest(name, prefix string) bool {
	return len(name) > len(prefix) && strings.HasPrefix(name, prefix)
}

// isAutosave knows `#name#`.
func isAutosave(name string) bool {
	return len(name) > len("##") && name[0] == '#' && name[len(name)-1] == '#'
}

// isVimTest knows the file by which vim finds out whether a directory may be written: 4913, and where
// that is there, 123 more, and so on while the number has four digits.
func isVimTest(name string) bool {
	if len(name) != len("4913") {
		return false
	}
	n := 0
	for _, c := range []byte(name) {
		if c < '0' || c > '9' {
			return false
		}
		n = 10*n + int(c-'0')
	}
	return n >= 4913 && (n-4913)%123 == 0
}

// isHidden knows names that the kernel's NFS client and libfuse give to removed files: a prefix and
// at least 16 hexadecimal digits.
func isHidden(name, prefix string) bool {
	digits, ok := strings.CutPrefix(name, prefix)
	return ok && len(digits) >= 16 && strings.Trim(digits, "0123456789abcdefABCDEF") == ""
}
