package main

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

func TestExitCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errHelped, 0},
		{os.ErrNotExist, 1},
		{unix.ENOSPC, 1},
		{datastore.ErrNone, 1},
		{datastore.ErrExists, 1},
		{layout.ErrUnsupported, 1},
		{usagef("x"), 2},
		{usagef("x: %w", keys.ErrNoProvider), 2}, // a mistake in kms.toml is a mistake
		{keys.ErrNoKey, 3},
		{keys.ErrLocked, 3},
		{keys.ErrNotFound, 3},
		{keys.ErrUnreachable, 3},
		{keys.ErrRefused, 3},
		{keys.ErrKeyState, 3},
		{keys.ErrWrongKey, 3},
		{keys.ErrKeyLength, 3},
		{keys.ErrTampered, 4},
		{keys.ErrSeal, 4},
		{layout.ErrDamaged, 4},
		{layout.ErrIllFormed, 4},
		{datastore.ErrUntrusted, 4},
		{&layout.SettingsError{}, 4},
		{&byname.UnfitError{}, 4},
		{&layout.SettingsError{Err: layout.ErrUnsupported}, 1},
		{mounts.ErrNotMounted, 5},
		{&mounts.BusyError{}, 6},
		{datastore.ErrBusy, 6},
		{admin.ErrInUse, 6},
		{&daemonError{Message: "x", Code: 3}, 3},
		{&admin.Error{Message: "x", Reason: "cluster_unreachable"}, 3},
		{&admin.Error{Message: "x", Reason: "settings_seal"}, 4},
		{&admin.Error{Message: "x", Reason: "failed"}, 1},
	} {
		for _, err := range []error{c.err, wrapped(c.err), errors.Join(c.err, nil)} {
			if got := exitCode(err); got != c.want {
				t.Errorf("exitCode(%v) = %d, want %d", err, got, c.want)
			}
		}
	}
}

func wrapped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("object: %w", err)
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain: a \"quoted\" name":  `plain: a "quoted" name`,
		"one\ntwo\n":                "one; two",
		"clear\x1b[2Jscreen":        `clear\x1b[2Jscreen`,
		"not UTF-8 \xff":            `not UTF-8 \xff`,
		"Größe, 長さ":                 "Größe, 長さ",
		"right-to-left \u202e eman": `right-to-left \u202e eman`,
	} {
		if got := oneLine(in); got != want {
			t.Errorf("oneLine(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSizeText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 10 << 30: "10.0 GiB", 1<<63 - 1: "8.0 EiB",
	} {
		if got := sizeText(n); got != want {
			t.Errorf("sizeText(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestAgeText(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 0: "0 s", 59 * time.Second: "59 s", time.Minute: "1 min",
		59 * time.Minute: "59 min", 61 * time.Minute: "1 h 1 min", 25 * time.Hour: "1 d 1 h",
	} {
		if got := ageText(d); got != want {
			t.Errorf("ageText(%v) = %q, want %q", d, got, want)
		}
	}
}
