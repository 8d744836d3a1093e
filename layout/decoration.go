package layout

import "strings"

// decorations are the endings added to a name by programs that replace a file or keep a copy.
var decorations = [...]string{"~", ".tmp", ".temp", ".bak", ".new", ".old", ".part", ".filepart"}

// baseName is the part of name to match: the last path element without temporary decoration, in
// lower case. baseName is empty only for an empty element.
func baseName(name string) string { return lower(undecorate(element(name))) }

// element is the last path element; slashes at the end do not count.
func element(name string) string {
	name = strings.TrimRight(name, "/")
	return name[strings.LastIndexByte(name, '/')+1:]
}

// undecorate removes decoration until none is left. A name made of decoration alone keeps its
// last piece. The pieces have different endings, so the order of removal is irrelevant. No name
// gains a byte: the result is one piece of name, and names the file that the decorated file was
// or will replace.
func undecorate(name string) string {
	for {
		inner := undecorateOnce(name)
		if inner == "" || inner == name {
			return name
		}
		name = inner
	}
}

func undecorateOnce(name string) string {
	if IsSwap(name) || IsRsync(name) {
		// Both programs put a dot in front. The dot goes too: swap files of `.vmx` and `vmx` have
		// the same name, and only `.vmx` would be clear.
		return name[1:strings.LastIndexByte(name, '.')]
	}
	for _, d := range decorations {
		if cut := len(name) - len(d); cut >= 0 && lower(name[cut:]) == d {
			return name[:cut]
		}
	}
	return name
}

// IsSwap reports whether name is an editor's swap file, `.name.swp`. vim counts down from `.swp`
// to `.swa`, and probes with `.swx`. A name without the leading dot is no editor's: ESXi keeps
// memory in `sysSwap-HOST.swp`.
func IsSwap(name string) bool {
	n := len(name)
	if n < len(".n.swp") || name[0] != '.' || lower(name[n-4:n-1]) != ".sw" {
		return false
	}
	c := lower(name[n-1:])[0]
	return c >= 'a' && c <= 'p' || c == 'x'
}

// IsRsync reports whether name is a temporary of rsync, `.name.XXXXXX`. Letters of one case alone are
// taken for a word, as in `.name.backup`: one in a hundred of rsync's own looks
// so too, and is encrypted as an unknown name.
func IsRsync(name string) bool {
	n := len(name)
	if n < len(".n.XXXXXX") || name[0] != '.' || name[n-7] != '.' {
		return false
	}
	var upper, low, digit bool
	for _, c := range []byte(name[n-6:]) {
		switch {
		case 'A' <= c && c <= 'Z':
			upper = true
		case 'a' <= c && c <= 'z':
			low = true
		case '0' <= c && c <= '9':
			digit = true
		default:
			return false
		}
	}
	return digit || upper && low
}

// lower folds ASCII alone. Every pattern of ours is ASCII, and Unicode's folding
// would let other letters, like the Kelvin sign for a k, turn a name clear.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return lowerFrom(s, i)
		}
	}
	return s
}

func lowerFrom(s string, i int) string {
	b := []byte(s)
	for ; i < len(b); i++ {
		if 'A' <= b[i] && b[i] <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}
