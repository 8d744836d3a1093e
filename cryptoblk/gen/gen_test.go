package main

import (
	"bytes"
	"os"
	"testing"
)

// TestCurrent fails when the checked-in files differ from this program's output.
func TestCurrent(t *testing.T) {
	asm, stubs, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]byte{asmFile: asm, stubsFile: stubs} {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not current: run go generate ./cryptoblk", path)
		}
	}
}
