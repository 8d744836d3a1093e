package fs

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/layout"
)

// TestTemporaryExchanged: other hands put another file under a temporary's name. Either the new
// file gets the name, or the name is not believed to be the new file's.
func TestTemporaryExchanged(t *testing.T) {
	const temp = layout.ReservedPrefix + "-0-temp"
	for what, give := range map[string]func(r *rig, fd int, key backing.Key) error{
		"first name": func(r *rig, fd int, key backing.Key) error {
			return publish(r.store.Fd(), fd, key, temp, "name", naming{})
		},
		"removal": func(r *rig, _ int, key backing.Key) error {
			return removeIf(r.store.Fd(), temp, key, 0)
		},
		"other form": func(r *rig, _ int, key backing.Key) error {
			r.plant("name", "old")
			fd, st := openByPath(r.t, r.under("name"))
			defer unix.Close(fd)
			d := &formDir{parent: r.store.Fd(), key: backing.KeyOf(st), made: key}
			return d.Publish(temp, "name")
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, nil)
			r.plant(temp, "made")
			r.plant("victim", "victim")
			fd, st := openByPath(t, r.under(temp))
			defer unix.Close(fd)
			if err := unix.Renameat2(unix.AT_FDCWD, r.under(temp), unix.AT_FDCWD, r.under("victim"), unix.RENAME_EXCHANGE); err != nil {
				t.Fatal(err)
			}
			err := give(r, fd, backing.KeyOf(st))
			if what == "first name" {
				wantErrno(t, what, err, 0)
				if got, err := os.ReadFile(r.under("name")); err != nil || string(got) != "made" {
					t.Errorf("the name leads to %q, %v", got, err)
				}
			} else {
				wantErrno(t, what, err, unix.EIO)
			}
			at := temp
			if what == "other form" { // only a rename replaces
				at = "name"
			}
			if got, err := os.ReadFile(r.under(at)); err != nil || string(got) != "victim" {
				t.Errorf("%s holds %q, %v, want the other file", at, got, err)
			}
		})
	}
}
