package main

import (
	"strings"
	"testing"
)

// TestRefusedNames: the alphabetically first names are shown, in any order of finding.
func TestRefusedNames(t *testing.T) {
	t.Parallel()
	r := &refusedError{}
	for name := range strings.SplitSeq("g c a/b f b d e", " ") {
		r.add(name)
	}
	if got := r.Error(); r.count != 7 || !strings.HasSuffix(got, ": a/b, b, c, d, e and 2 more") {
		t.Errorf("%d: %s", r.count, got)
	}
}
