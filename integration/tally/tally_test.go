package tally

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAdd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tally")
	t.Setenv(File, path)
	Add(t, "kills", 3)
	Add(t, "boots", 1)
	t.Setenv(File, "")
	Add(t, "not kept", 5)
	if got, err := os.ReadFile(path); err != nil || string(got) != "kills\t3\nboots\t1\n" {
		t.Errorf("%q, %v", got, err)
	}
}
