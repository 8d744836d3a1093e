package main

import (
	"strings"
	"testing"
)

// TestManual: every command has a sentence and an example, which calls it.
func TestManual(t *testing.T) {
	t.Parallel()
	names := []string{"kms check", "kms list"}
	for _, c := range commands() {
		names = append(names, c.name)
	}
	for _, name := range names {
		m := manualOf(name)
		if !strings.HasSuffix(m.about, ".") || !strings.HasPrefix(m.example, "vmcryptfs "+name) {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// TestClosest: a mistyped word is known by what it is like, another is not.
func TestClosest(t *testing.T) {
	t.Parallel()
	names := []string{"init", "mount", "umount", "status", "info", "settings", "export", "rekey", "kms"}
	for word, want := range map[string]string{
		"mont": "mount", "unmount": "umount", "stauts": "status", "setings": "settings", "exprot": "export", "stat": "status",
		"rekye": "rekey", "frobnicate": "", "x": "", "": "", "inti": "init", "completely": "",
	} {
		if got := closest(word, names); got != want {
			t.Errorf("closest(%q) = %q, want %q", word, got, want)
		}
	}
}
