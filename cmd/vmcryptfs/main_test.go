package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// hiddenEnv marks the copy of the test binary with a mount namespace of its own.
const hiddenEnv = "VMCRYPTFS_TEST_HIDDEN"

// TestMain runs the scripts with the host's datastores, keys and logs out of sight. A mount left
// behind by a failed script ends with the last process.
func TestMain(m *testing.M) {
	program := func() {
		p := newProgram()
		os.Exit(p.end(p.run(context.Background(), os.Args)))
	}
	names := map[string]func(){"vmcryptfs": program, "mount.fuse.vmcryptfs": program, "makemoving": makeMoving}
	if names[filepath.Base(os.Args[0])] == nil && os.Getenv(hiddenEnv) == "" {
		os.Exit(hide())
	}
	testscript.Main(m, names)
}

// hide runs the test binary again in a mount namespace with empty directories in all places used
// by vmcryptfs.
func hide() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests mount file systems: run them as root")
		return 1
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), hiddenEnv+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Unshareflags, unlike Cloneflags, make the mounts private.
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	// A shell's & makes programs, and their children, ignore SIGINT. A signal caught here has the
	// default effect in the copy, since exec resets caught signals.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGQUIT, unix.SIGHUP)
	err := again.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return again.ProcessState.ExitCode()
}

// apart runs a command in a mount namespace of its own, with a copy of every mount: for scripts that
// run alone.
const apart = `#!/bin/sh
exec unshare --mount --propagation private "$@"
`

// await waits, within a bound, until a command succeeds.
const await = `#!/bin/sh
end=$(($(date +%s) + 120))
until "$@" >/dev/null 2>&1; do
	[ "$(date +%s)" -lt "$end" ] || exit 1
	sleep 0.02
done
`

// hideHost mounts empty directories, and installs the program, apart and await; in the
// namespace of its own only.
func hideHost() error {
	const bin = "/usr/local/bin"
	if err := mounttest.LeaveOthersMounts(); err != nil {
		return err
	}
	for _, dir := range []string{"/run", "/var/lib", "/var/log", bin} {
		if err := unix.Mount("none", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("hide %s: %w", dir, err)
		}
	}
	for name, text := range map[string]string{"apart": apart, "await": await} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	// mount(8) and the helper use a fixed PATH, and other users cannot read the directories of ours.
	program, err := exec.LookPath("vmcryptfs")
	if err != nil {
		return err
	}
	if err := exec.Command("install", "-m", "755", program, filepath.Join(bin, "vmcryptfs")).Run(); err != nil {
		return err
	}
	return installHelper("/sbin", filepath.Join(bin, "vmcryptfs"))
}

// installHelper puts the helper of mount(8) into the helper's only directory, now a directory of
// links to the former content.
func installHelper(dir, program string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	const real = "/run/sbin"
	if at, err := os.Readlink(filepath.Join(dir, "mount.fuse.vmcryptfs")); err == nil && at == program {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil { // of another test, whose /run is hidden now
			return fmt.Errorf("uninstall the helper of mount: %w", err)
		}
	}
	if err := errors.Join(os.Mkdir(real, 0o755), unix.Mount(dir, real, "", unix.MS_BIND, ""), unix.Mount("none", dir, "tmpfs", 0, "mode=755")); err != nil {
		return fmt.Errorf("install the helper of mount: %w", err)
	}
	entries, err := os.ReadDir(real)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "mount.fuse.vmcryptfs" {
			continue
		}
		if err := os.Symlink(filepath.Join(real, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.Symlink(program, filepath.Join(dir, "mount.fuse.vmcryptfs"))
}

// TestScripts runs testdata/*.txtar: every command, exit code and JSON shape. The scripts of
// testdata/alone run first, one after the other: a mount namespace made by such a script has a
// copy of each existing mount, and no other script could unmount meanwhile.
func TestScripts(t *testing.T) {
	if err := hideHost(); err != nil {
		t.Fatal(err)
	}
	alone, err := filepath.Glob("testdata/alone/*.txtar")
	if err != nil || len(alone) == 0 {
		t.Fatalf("no scripts that run alone: %v", err)
	}
	for _, file := range alone {
		t.Run("alone", func(t *testing.T) { testscript.Run(t, scripts(t, testscript.Params{Files: []string{file}})) })
	}
	testscript.Run(t, scripts(t, testscript.Params{Dir: "testdata"}))
}

// scripts adds the common parts of all scripts to p.
func scripts(t *testing.T, p testscript.Params) testscript.Params {
	p.RequireExplicitExec = true
	p.RequireUniqueNames = true
	p.Setup = func(e *testscript.Env) error {
		for _, dir := range []string{"b", "m"} { // BACKING and MOUNTPOINT
			if err := os.Mkdir(e.Cd+"/"+dir, 0o755); err != nil {
				return err
			}
		}
		e.Values[gateKey{}] = new(*gate)
		e.Values[kmsKey{}] = &kms{release: func() {}}
		e.Setenv("VMCRYPTFS_DEVKMS", e.Cd+"/devkms")
		e.Setenv("KMS", e.Cd+"/devkms/kms.toml")
		if err := keepAddress(e.Cd+"/devkms", mounttest.FreeAddress(t)); err != nil {
			return err
		}
		e.Defer(func() { // no mount outlives its script
			for _, dir := range []string{"m", "m2"} {
				for unix.Unmount(e.Cd+"/"+dir, unix.MNT_DETACH) == nil {
				}
			}
		})
		return nil
	}
	p.Cmds = map[string]func(*testscript.TestScript, bool, []string){
		"exits":     cmdExits,
		"json":      cmdJSON,
		"corrupt":   cmdCorrupt,
		"oneline":   cmdOneLine,
		"noprocess": cmdNoProcess,
		"gate":      cmdGate,
		"allow":     cmdAllow,
		"asked":     cmdAsked,
		"serve":     func(ts *testscript.TestScript, _ bool, args []string) { kmsOf(ts).serve(ts, args) },
		"hold":      cmdHold,
		"release":   func(ts *testscript.TestScript, _ bool, _ []string) { kmsOf(ts).release() },
		"unserve":   func(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(kmsOf(ts).end()) },
	}
	return p
}

// keepAddress makes the development KMS of dir serve at address after every restart, the last
// address in kms.toml. Clients look for the KMS at address during an outage.
func keepAddress(dir, address string) error {
	return errors.Join(os.Mkdir(dir, 0o700), writeConfig(dir+"/kms.toml", address, ""))
}

// writeConfig writes a kms.toml of the development KMS at address into the directory of the KMS.
// more is text for the end of the file.
func writeConfig(path, address, more string) error {
	text := fmt.Sprintf("[provider.dev]\nservers = [%q]\nca = \"ca.pem\"\ncert = \"client.pem\"\nkey = \"client.key\"\n%s", address, more)
	return os.WriteFile(path, []byte(text), 0o600)
}

// cmdExits: exits CODE COMMAND ARG… runs a command that must end with CODE. stdout and stderr then
// check the output.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARG…")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// cmdOneLine: oneline [WORD]: the last command's standard error is one line with the usual
// beginning, or beginning with WORD.
func cmdOneLine(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile("stderr")
	word := append(args, "vmcryptfs")[0]
	if !regexp.MustCompile(`^` + word + `: [^\n]+\n$`).MatchString(text) {
		ts.Fatalf("standard error is not one line of ours: %q", text)
	}
}

// cmdCorrupt: corrupt FILE OFFSET inverts a byte.
func cmdCorrupt(ts *testscript.TestScript, neg bool, args []string) {
	var off int64
	if _, err := fmt.Sscan(args[1], &off); err != nil {
		ts.Fatalf("usage: corrupt FILE OFFSET")
	}
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	ts.Check(err)
	b[0] ^= 0xff
	_, err = f.WriteAt(b[:], off)
	ts.Check(err)
}

// kms is the development KMS of a script, in a process of its own.
type kms struct {
	process *exec.Cmd
	release func() // undoes hold
}

// serve, in a script: serve ARG… starts vmcryptfs devkms serve and waits until the KMS serves.
// Clients get a timeout long enough for a busy host.
func (k *kms) serve(ts *testscript.TestScript, args []string) {
	c := exec.Command("vmcryptfs", append([]string{"devkms", "serve"}, args...)...)
	c.Dir = ts.MkAbs(".")
	c.Env = append(os.Environ(), "VMCRYPTFS_DEVKMS="+ts.Getenv("VMCRYPTFS_DEVKMS"))
	out, err := c.StdoutPipe()
	ts.Check(err)
	ts.Check(c.Start())
	k.process = c
	ts.Defer(func() { k.end() })
	line, err := bufio.NewReader(out).ReadString('\n')
	ts.Check(err)
	said := regexp.MustCompile(`^development KMS on 127\.0\.0\.1:\d+; clients use (.*/kms\.toml)\n$`).FindStringSubmatch(line)
	if said == nil {
		ts.Fatalf("devkms serve says %q", line)
	}
	config, err := os.OpenFile(said[1], os.O_WRONLY|os.O_APPEND, 0)
	ts.Check(err)
	_, err = config.WriteString("timeout = \"30s\"\n") // the only table in the file is the provider's
	ts.Check(errors.Join(err, config.Close()))
}

// kmsOf is the script's own.
func kmsOf(ts *testscript.TestScript) *kms { return ts.Value(kmsKey{}).(*kms) }

type kmsKey struct{}

// end, in a script: unserve, ends the server as a service manager does. The server must exit with
// 0.
func (k *kms) end() error {
	if k.process == nil {
		return nil
	}
	c := k.process
	k.process = nil
	return errors.Join(c.Process.Signal(unix.SIGTERM), c.Wait())
}

// cmdNoProcess: noprocess DIR: no daemon of ours serves below DIR any more.
func cmdNoProcess(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, proc := range procs {
		b, err := os.ReadFile(proc)
		if err == nil && strings.HasPrefix(string(b), "vmcryptfs\x00") && strings.Contains(string(b), dir) {
			ts.Fatalf("%s still runs: %q", proc, b)
		}
	}
}
