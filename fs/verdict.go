package fs

import (
	"vmcryptfs/layout"
)

// known is the strictest ruling over the known names of n; of a node that lost them all, that
// of the last, and of one that never had any, encrypt.
func (f *FS) known(n *node) ruling {
	names, last := f.table.namesOf(n)
	if len(names) == 0 {
		if last == "" {
			return ruling{}
		}
		return ruling{Verdict: f.classify(last), name: last}
	}
	r := ruling{Verdict: f.classify(names[0].name), name: names[0].name, at: names[0]}
	for _, at := range names[1:] {
		if v := f.classify(at.name); stricter(v.Class, r.Class) {
			r = ruling{Verdict: v, name: at.name, at: at}
		}
	}
	return r
}

func stricter(a, b layout.Class) bool {
	rank := func(c layout.Class) int {
		switch c {
		case layout.Clear:
			return 0
		case layout.Inspect:
			return 1
		default:
			return 2
		}
	}
	return rank(a) > rank(b)
}
