package tally

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// leave are commands with leftovers, and the leftovers' names in the report: RUN is the run's
// TMPDIR.
var leave = []struct{ command, named string }{
	{"setsid sleep 1001 &", `process [0-9]+: sleep 1001`},
	{"exec 3>$TMPDIR/open; env -i sleep 1002 & rm $TMPDIR/open", `process [0-9]+: sleep 1002`},
	{"mkdir $TMPDIR/cwd && cd $TMPDIR/cwd; env -i sleep 1003 &", `process [0-9]+: sleep 1003`},
	{"cp $(command -v sleep) $TMPDIR/program; env -i $TMPDIR/program 1004 &", `process [0-9]+: RUN/program 1004`},
	{"touch $TMPDIR/.hidden", `file RUN/\.hidden`},
	{"mkdir $TMPDIR/on && mount -t tmpfs none $TMPDIR/on", `mount RUN/on`},
	{"mkdir $TMPDIR/from /mnt/at && mount --bind $TMPDIR/from /mnt/at", `mount /mnt/at`},
	{"truncate -s 1M $TMPDIR/disk && losetup --find $TMPDIR/disk && rm $TMPDIR/disk", `block device /dev/loop[0-9]+ RUN/disk \(deleted\)`},
	{"mkdir -p /var/lib/vmcryptfs /run/vmcryptfs/ours", `file /var/lib/vmcryptfs \(or another vmcryptfs on this host made it\)`},
	{"true", `file /run/vmcryptfs/ours \(or .*\)`},
}

// TestLeftovers: the report names every leftover of a test, and leftovers alone fail the run.
func TestLeftovers(t *testing.T) {
	for _, dir := range []string{"/mnt", "/run"} { // theirs alone
		hide(t, dir)
	}
	if err := os.MkdirAll("/run/vmcryptfs/theirs", 0o755); err != nil {
		t.Fatal(err)
	}
	commands := []string{"echo $TMPDIR"}
	for _, l := range leave {
		commands = append(commands, l.command)
	}
	c := newReport(t, commands...)
	t.Cleanup(func() { takeAway(t, temporary(c)) })
	out, err := c.CombinedOutput()
	run, report, _ := strings.Cut(string(out), "\n")
	if err == nil {
		t.Error("exit 0")
	}
	for _, l := range leave {
		line := `(?m)^  ` + strings.ReplaceAll(l.named, "RUN", regexp.QuoteMeta(run)) + ` ?$`
		if !regexp.MustCompile(line).MatchString(report) {
			t.Errorf("%s: no line %q", l.command, line)
		}
	}
	wantLines(t, report, []string{"  failed: 0 tests, 0 packages"}, []string{"  failed command", "  did not run", "  file /run/vmcryptfs/theirs"})
}

// TestNoLook: where the look for leftovers itself fails, the run does.
func TestNoLook(t *testing.T) {
	dir := t.TempDir()
	mounttest.Tool(t, "cp", "../../scripts/tally", dir)
	for when, script := range map[string]string{
		"before": "#!/bin/sh\nexit 1\n",
		"after":  "#!/bin/sh\n[ \"$2\" = before ]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "leftovers"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		c := newReport(t, "true")
		c.Path = filepath.Join(dir, "tally")
		if out, err := c.CombinedOutput(); err == nil {
			t.Errorf("a look that fails %s: exit 0:\n%s", when, out)
		}
	}
}

// hide puts an empty directory over another until the test ends.
func hide(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("none", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatalf("hide %s: %v", dir, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// takeAway removes the mounts and loop devices of a directory. (Processes end with these tests:
// mounttest.Main.)
func takeAway(t *testing.T, dir string) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, dir) {
			if err := unix.Unmount(strings.Fields(line)[4], unix.MNT_DETACH); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Error(err)
	}
	for _, file := range loops {
		if over, _ := os.ReadFile(file); strings.Contains(string(over), dir) {
			mounttest.Tool(t, "losetup", "--detach", "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(file))))
		}
	}
}

// TestStackedDevices: a device belongs to the run if the device lies, over others, on a file of
// the run. The test uses a copy of the kernel's description of devices: not every kernel has the
// mapper.
func TestStackedDevices(t *testing.T) {
	hide(t, "/sys/block")
	c := newReport(t, `cd /sys/block && mkdir -p loop7/loop dm-0/slaves/loop7 dm-0/dm dm-1/slaves/dm-0 dm-1/dm loop8/loop dm-2/slaves/loop8 dm-2/dm
		echo "$TMPDIR/disk (deleted)" >loop7/loop/backing_file; echo /tmp/other/t/disk >loop8/loop/backing_file
		for n in 0 1 2; do echo name$n >dm-$n/dm/name; done`)
	out, err := c.CombinedOutput()
	if err == nil {
		t.Error("exit 0")
	}
	wantLines(t, string(out), []string{"  block device /dev/loop7 ", "  block device /dev/dm-0 name0", "  block device /dev/dm-1 name1"},
		[]string{"  block device /dev/loop8", "  block device /dev/dm-2"})
}
