package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

const corePattern = "/proc/sys/kernel/core_pattern"

// setCorePattern makes the kernel write core.PID into a process's working directory, until the
// test ends: a host may have a program that takes all cores.
func setCorePattern(t *testing.T) {
	t.Helper()
	was, err := os.ReadFile(corePattern)
	if err != nil {
		t.Fatal(err)
	}
	const want = "core.%p\n"
	if string(was) == want {
		return
	}
	t.Cleanup(func() {
		if err := os.WriteFile(corePattern, was, 0); err != nil {
			t.Errorf("put %q back: %v", was, err)
		}
	})
	if err := os.WriteFile(corePattern, []byte(want), 0); err != nil {
		t.Fatal(err)
	}
}

// crash makes a shell with secret in its memory dump core into dir, run by runner (a prefix of
// the command line), and returns the core's name.
func crash(t *testing.T, dir, secret string, runner ...string) string {
	t.Helper()
	c := exec.Command("sh", append(append([]string{"-c", `ulimit -c unlimited; exec "$@"`, "sh"}, runner...),
		"sh", "-c", `secret=$(printf %s%s "$1" "$2"); kill -ABRT $$`, "sh", secret[:4], secret[4:])...)
	c.Dir = dir
	err := c.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("a shell that aborts: %v, want a signal", err)
	}
	if status, ok := exit.Sys().(interface{ CoreDump() bool }); !ok || !status.CoreDump() {
		t.Fatalf("a shell that aborts: %v, want a core", err)
	}
	return fmt.Sprintf("core.%d", exit.Pid())
}

// TestCoreDumps: the kernel writes a core, as root and as a hypervisor's own user, and the
// targets of pipes and other collectors store the core under their names. Every core is
// encrypted; the log beside is not.
func TestCoreDumps(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	setCorePattern(t)
	if err := errors.Join(os.Mkdir(d.Path("vm"), 0o755), os.Chmod(d.Path("vm"), 0o777)); err != nil {
		t.Fatal(err)
	}
	const secret = "IN-A-GUESTS-MEMORY-9f8e7d6c5b4a"
	core := crash(t, d.Path("vm"), secret)
	user := crash(t, d.Path("vm"), secret, "setpriv", "--reuid=64055", "--regid=64055", "--clear-groups")
	var st unix.Stat_t
	if err := unix.Stat(d.Path("vm/"+user), &st); err != nil || st.Uid != 64055 {
		t.Errorf("the core of user 64055 is of %d (%v)", st.Uid, err)
	}
	content := d.Read("vm/" + core)
	forms := map[string]string{"vm/" + core: "encrypted", "vm/" + user: "encrypted"}
	for _, name := range []string{
		core + ".copy", "core", "core.qemu-system-x86.64055.0123456789abcdef0123456789abcdef.4711.1764028800000000",
		"_usr_bin_qemu-system-x86_64.64055.crash", "vmcore", "vmcore-dmesg.txt", "vmx-zdump.000", "qemu.core", "vm.dmp",
	} {
		pipeTo(t, d.Path("vm/"+name), content)
		forms["vm/"+name] = "encrypted"
	}
	const told = "the guest crashed: see its core\n"
	d.Write("vm/vmware.log", []byte(told))
	forms["vm/vmware.log"] = "clear"
	check := func(when string) {
		t.Helper()
		d.WantForms(forms)
		for name, form := range forms {
			if form != "encrypted" {
				continue
			}
			if got := d.Read(name); !bytes.HasPrefix(got, []byte("\x7fELF")) || !bytes.Contains(got, []byte(secret)) {
				t.Errorf("%s: %s is no core with what was in memory", when, name)
			}
		}
		raw := readTree(t, d.Backing)
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("%s: what was in memory lies in BACKING in clear", when)
		}
		if !bytes.Contains(raw, []byte(told)) {
			t.Errorf("%s: the log is not in clear", when)
		}
	}
	check("after the crash")
	d.Remount()
	check("after a remount")
	d.verify()
}

// pipeTo passes content to a program's standard input. The program writes the content to a file
// in pieces of a pipe, as the target of a core_pattern does.
func pipeTo(t *testing.T, path string, content []byte) {
	t.Helper()
	c := exec.Command("sh", "-c", `cat >"$1"`, "sh", path)
	c.Stdin = bytes.NewReader(content)
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("pipe to %s: %v\n%s", filepath.Base(path), err, text)
	}
}
