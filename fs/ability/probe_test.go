package ability

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/otherfs"
)

const temporary = ".vmcryptfs-0123456789abcdef-"

func openDir(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func probe(t *testing.T, dir string) *Report {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, err := Probe(context.Background(), fd, temporary)
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if e.Name() != "lost+found" {
			t.Errorf("%s is left", e.Name())
		}
	}
	return r
}

// TestOtherFileSystems: the findings for common file systems, all of which can hold a datastore.
func TestOtherFileSystems(t *testing.T) {
	for kind, want := range map[string]string{
		"bindfs":   "first-name tmpfile noreplace exchange punch",
		"sshfs":    "link-number first-name tmpfile noreplace exchange punch xattrs",
		"ntfs-3g":  "first-name tmpfile noreplace exchange punch",
		"mergerfs": "link-number tmpfile noreplace exchange",
	} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			otherfs.Mount(t, kind, dir)
			r := probe(t, dir)
			missing := make(map[Ability]bool)
			for _, a := range r.Missing() {
				missing[a] = true
			}
			for a := range strings.FieldsSeq(want) {
				if !missing[Ability(a)] {
					t.Errorf("%s is not missing: %+v", a, r.Abilities[Ability(a)])
				}
			}
			if err := r.Err(); err != nil {
				t.Error(err)
			}
			if !strings.HasPrefix(r.FileSystem, "fuse") {
				t.Errorf("the type is %q", r.FileSystem)
			}
			t.Log(r.Missing())
		})
	}
}

// TestRefused: each fault of a file system that breaks a promise is found, and reported.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		ability Ability
		faults  otherfs.Faults
	}{
		{Exclusive, otherfs.Faults{Twice: true}},
		{Replace, otherfs.Faults{KeepNew: true}},
		{Sync, otherfs.Faults{Sync: unix.EIO}},
		{Extend, otherfs.Faults{Extend: unix.EPERM}},
		{Numbers, otherfs.Faults{Numbers: true}},
		{Numbers, otherfs.Faults{Linkless: true}},
		{Renamed, otherfs.Faults{Lost: true}},
		{Locks, otherfs.Faults{LockTwice: true}},
	} {
		ability, faults := tt.ability, tt.faults
		t.Run(string(ability), func(t *testing.T) {
			dir := t.TempDir()
			otherfs.Faulty(t, dir, faults)
			err := probe(t, dir).Err()
			if !errors.Is(err, ErrUnfit) {
				t.Fatalf("%v, want %v", err, ErrUnfit)
			}
			for _, words := range []string{"no " + string(ability), ability.Without()} {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%v does not say %q", err, words)
				}
			}
		})
	}
}

// TestMissing: each missing optional ability is found, and nothing else.
func TestMissing(t *testing.T) {
	for ability, faults := range map[Ability]otherfs.Faults{
		"":        {},
		Link:      {Link: unix.ENOSYS},
		NoReplace: {Rename2: unix.EINVAL},
		Exchange:  {NoFlags: true},
		Cases:     {Shouting: true},
	} {
		t.Run(string(ability), func(t *testing.T) {
			dir := t.TempDir()
			otherfs.Faulty(t, dir, faults)
			r := probe(t, dir)
			if err := r.Err(); err != nil {
				t.Error(err)
			}
			if ability != "" && !r.Lacks(ability) {
				t.Errorf("%s: %+v", ability, r.Abilities[ability])
			}
			if ability == "" && (r.Lacks(Link) || r.Lacks(NoReplace) || r.Lacks(Cases)) {
				t.Errorf("missing: %v", r.Missing())
			}
			for _, a := range All() {
				if r.Abilities[a].Answer == Untried {
					t.Errorf("%s was not tried: %s", a, r.Abilities[a].Detail)
				}
			}
		})
	}
}

// TestConflict: both of POSIX's errors for a lock of another descriptor are taken for one.
func TestConflict(t *testing.T) {
	dir := t.TempDir()
	otherfs.Faulty(t, dir, otherfs.Faults{Conflict: unix.EACCES})
	if err := probe(t, dir).Err(); err != nil {
		t.Error(err)
	}
}

// TestFull: a full file system is not reported to lack anything.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	fill := filepath.Join(dir, "lost+found")
	if err := os.WriteFile(fill, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	r := probe(t, dir)
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if f := r.Abilities[Exclusive]; f.Answer != Untried {
		t.Errorf("%+v", f)
	}
}

// TestLeftovers: the remains of an earlier probe's crash are removed, and nothing else: no place in
// use, no name of another host, no file that probes never make.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	place := func(name string, files ...string) string {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.WriteFile(filepath.Join(path, file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	crashed := place(temporary+"check-1", first, shouted)
	stay := []string{
		place(temporary+"check-2", first),
		place(".vmcryptfs-fedcba9876543210-check-1", first),
		place(temporary+"check-3", "disk.img"),
	}
	if err := unix.Flock(openDir(t, stay[0]), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	r, err := Probe(context.Background(), openDir(t, dir), temporary)
	if err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
	if _, err := os.Lstat(crashed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s stays: %v", crashed, err)
	}
	for _, path := range append(stay, filepath.Join(stay[0], first), filepath.Join(stay[2], "disk.img")) {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
}

// TestStopped: a probe whose time is over names a required ability that was not tried.
func TestStopped(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Probe(ctx, openDir(t, dir), temporary); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
