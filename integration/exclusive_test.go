package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// TestSecondMountIsRefused: one BACKING is mounted once on a host, whatever the path and whatever
// the second process knows of the first. The refusal names the holder.
func TestSecondMountIsRefused(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	top := t.TempDir()
	link, bind := filepath.Join(top, "link"), filepath.Join(top, "bind")
	if err := errors.Join(os.Symlink(d.Backing, link), os.Mkdir(bind, 0o700), unix.Mount(d.Backing, bind, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(bind, unix.MNT_DETACH) })
	second := newUnmounted(t, d.KMS)
	refused := func(how string, r mounttest.Result) {
		t.Helper()
		if who := fmt.Sprintf("process %d ", d.PID); r.Code != 6 || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, who) {
			t.Errorf("%s: want exit 6 and a line with %q, %v", how, who, r)
		}
	}
	for _, second.Backing = range []string{d.Backing, link, bind} {
		refused(filepath.Base(second.Backing), second.TryMount())
	}
	refused("from a process that sees no state of the first", mounttest.Run(t, d.KMS.Env(),
		append(elsewhere(t), mounttest.Program(t), "mount", "--dev", d.Backing, second.Mnt)...))
	d.Write("vm.nvram", []byte("the first goes on"))
	copied := filepath.Join(top, "copy")
	mounttest.Tool(t, "cp", "-a", d.Backing, copied)
	second.Backing = copied
	if r := second.TryMount(); r.Code != 6 || !strings.Contains(r.Stderr, "a copy of the datastore that is mounted at "+d.Mnt+" from "+d.Backing) {
		t.Errorf("a copy beside its original: want exit 6, %v", r)
	}
	d.Unmount()
	second.Mount()
	wantSame(t, "the copy by itself", second.Read("vm.nvram"), []byte("the first goes on"))
}
