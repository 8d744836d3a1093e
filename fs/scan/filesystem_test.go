package scan

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemains: each type is there once and is named in its text; an unknown one is too.
func TestRemains(t *testing.T) {
	t.Parallel()
	names, numbers := map[string]bool{}, map[uint32]bool{}
	for _, k := range fsTypes {
		if names[k.name] || numbers[k.magic] {
			t.Errorf("%s (%#x) is there twice", k.name, k.magic)
		}
		names[k.name], numbers[k.magic] = true, true
		if text := strings.Join(Remains(k.name), "\n"); !strings.Contains(text, k.name) || !strings.Contains(text, k.keeps) {
			t.Errorf("%s: %s", k.name, text)
		}
	}
	if text := strings.Join(Remains("0x1234"), "\n"); !strings.Contains(text, "0x1234") {
		t.Error(text)
	}
}

// TestFileSystem: a type is had of every directory.
func TestFileSystem(t *testing.T) {
	t.Parallel()
	fd, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if got := fileSystem(fd); got != "0x9fa0" {
		t.Errorf("/proc is %s", got)
	}
	if got := fileSystem(-1); got != "unknown" {
		t.Errorf("no directory is %s", got)
	}
}
