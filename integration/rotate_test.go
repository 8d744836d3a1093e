package integration

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"vmcryptfs/integration/mounttest"
)

// rotate makes logrotate rotate a log of the mount at once, and returns the file left beside.
func rotate(t *testing.T, log, how string) (rotated string) {
	t.Helper()
	work := t.TempDir()
	config := filepath.Join(work, "conf")
	text := fmt.Sprintf("%s {\n\trotate 5\n\tsu root root\n\t%s\n}\n", log, how)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	mounttest.Tool(t, "logrotate", "--force", "--state", filepath.Join(work, "state"), config)
	found, err := filepath.Glob(log + "?*")
	if err != nil || len(found) != 1 {
		t.Fatalf("beside %s: %q, %v, want one file", log, found, err)
	}
	return found[0]
}

// TestLogrotate makes logrotate rotate a log too long to be converted, under the names of
// logrotate's options: the file is a log before and after.
func TestLogrotate(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	text := bytes.Repeat([]byte("a line of the log\n"), 100_000) // above 1 MiB
	for i, how := range []string{
		"dateext\n\tdateformat -%Y%m%d%H",
		"dateext\n\tdateformat -%Y-%m-%dT%H:%M:%S",
		"dateext\n\tdateformat .%Y-%m-%d_%H\n\tcompress",
		"dateext\n\tdateformat -%s\n\tcopytruncate",
		"dateext\n\thourly\n\tcopytruncate\n\tcompress",
		"copytruncate",
		"start 999",
	} {
		name := fmt.Sprintf("vm%d.log", i)
		d.Write(name, text)
		rotated := rotate(t, d.Path(name), how)
		base := filepath.Base(rotated)
		if got := d.Form(base); got != "clear" {
			t.Errorf("%q: %s is %s in BACKING, want clear", how, base, got)
		}
		if got := unpacked(t, d.Read(base)); !bytes.Equal(got, text) {
			t.Errorf("%q: %s holds %d bytes, want the log's %d", how, base, len(got), len(text))
		}
	}
}

// unpacked is content without gzip's packing.
func unpacked(t *testing.T, content []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return content
	}
	content, err = io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
