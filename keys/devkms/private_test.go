package devkms_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/keys/devkms"
)

// The directory of the keys may be named anywhere, even where another user came first; that user
// would get the keys, or choose which file the server overwrites.
func TestDirectoryOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make another user's directory")
	}
	t.Parallel()
	const foreign = 12345
	for _, c := range []struct {
		name string
		make func(dir string) error
		want string
	}{
		{"made by another user", func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, foreign, -1))
		}, "belongs to user 12345"},
		{"for all to write", func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777))
		}, "may be written by others"},
		{"below another user's", func(dir string) error {
			return os.Chown(filepath.Dir(dir), foreign, -1)
		}, "belongs to user 12345"},
		{"a link to another user's", func(dir string) error {
			there := dir + ".there"
			return errors.Join(os.Mkdir(there, 0o755), os.Chown(there, foreign, -1), os.Symlink(there, dir))
		}, "belongs to user 12345"},
		{"with another user's keys", func(dir string) error {
			return errors.Join(os.MkdirAll(filepath.Join(dir, "keys"), 0o700), os.Chown(filepath.Join(dir, "keys"), foreign, -1))
		}, "belongs to user 12345"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "kms")
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			s, err := devkms.Start(t.Context(), dir, "", slog.New(slog.DiscardHandler))
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "client.key")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a key was written: %v", err)
			}
		})
	}
}

// Files are completed beside their names. $TMPDIR may be writable for everybody, and is no place
// for a key if the server crashes.
func TestNothingInTempDir(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, temp, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	kek, err := provider(t, start(t, filepath.Join(t.TempDir(), "kms"), "")).Create(t.Context(), "a key")
	if err != nil {
		t.Fatal(err)
	}
	kek.Wipe()
	if n, err := unix.Read(watch, make([]byte, 4096)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("files were made in $TMPDIR: %d bytes of events, %v", n, err)
	}
}
