package tally

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAdd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tally")
	t.Setenv(File, path)
	t.Run("counted", func(t *testing.T) {
		Add(t, "kills", 3)
		if _, err := os.Stat(path); err == nil {
			t.Error("written before the test's end")
		}
	})
	t.Setenv(File, "")
	t.Run("not kept", func(t *testing.T) { Add(t, "kills", 5) })
	if got, err := os.ReadFile(path); err != nil || string(got) != "kills\t3\t0\n" {
		t.Errorf("%q, %v", got, err)
	}
}
