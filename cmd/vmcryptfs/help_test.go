package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestManual: every command has a sentence, and an example with a call of the command.
func TestManual(t *testing.T) {
	t.Parallel()
	names := []string{"kms check", "kms list", "policy list", "policy define", "policy remove", "policy set", "policy rebind"}
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

// TestHelpFits: help fits on a screen of 80 columns.
func TestHelpFits(t *testing.T) {
	t.Parallel()
	words := []string{""}
	for _, c := range commands() {
		words = append(words, c.name)
	}
	for _, word := range words {
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		p := &program{stdout: &console{file: out}, stderr: out}
		if err := p.helpOf(t.Context(), strings.Fields(word)); err != nil && !errors.Is(err, errHelped) {
			t.Fatal(err)
		}
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > columns {
				t.Errorf("help %s: %s", word, line)
			}
		}
		out.Close()
	}
}

// TestClosest: a mistyped word leads to the most similar word; an unlike word leads to none.
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
