package accel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

const qemu = "qemu-system-x86_64"

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m.Run, qemu)) }

// nobody is a user whom no group lets in.
var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

const word = "GUEST"

// sector is a guest that waits for a tick of the timer and writes its announcement to port 0xe9.
func sector() []byte {
	b := []byte{0xfb, 0xf4} // sti, hlt
	for _, c := range []byte(word) {
		b = append(b, 0xb0, c, 0xe6, 0xe9) // mov al, c; out 0xe9, al
	}
	b = append(b, 0xf4, 0xeb, 0xfd) // hlt, and again
	return append(append(b, make([]byte, 510-len(b))...), 0x55, 0xaa)
}

// guest returns a guest with a disk readable for every user.
func guest(t *testing.T, user *syscall.Credential, machine ...string) Guest {
	t.Helper()
	disk := filepath.Join("/run", "boot.raw") // tmpfs of the namespace
	if err := os.WriteFile(disk, sector(), 0o644); err != nil {
		t.Fatal(err)
	}
	return Guest{QEMU: qemu, Says: word, User: user, Options: append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-m", "32", "-debugcon", "stdio",
		"-drive", "if=floppy,format=raw,readonly=on,file=" + disk}, machine...)}
}

// TestGuestRuns: a guest is heard, whichever user runs QEMU. Emulation, available everywhere,
// shows that.
func TestGuestRuns(t *testing.T) {
	for name, user := range map[string]*syscall.Credential{"root": nil, "nobody": nobody} {
		t.Run(name, func(t *testing.T) {
			if err := guest(t, user).Run(t.Context(), TCG); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestThisHost: KVM is chosen only where KVM exists, and a reason is given otherwise.
func TestThisHost(t *testing.T) {
	for _, cpu := range []string{"qemu64", "max"} {
		t.Run(cpu, func(t *testing.T) {
			got, why := guest(t, nil, "-cpu", cpu).Choose()
			t.Logf("%s (%v)", got, why)
			if kvm := openKVM(); got == KVM && kvm != nil {
				t.Errorf("KVM is chosen, and this host has none: %v", kvm)
			}
			if (got == KVM) != (why == nil) || got != KVM && got != TCG {
				t.Errorf("%s because of %v", got, why)
			}
		})
	}
}

// openKVM asks the device for the version of the KVM interface.
func openKVM() error {
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	const getAPIVersion = 0xae00
	if version, err := unix.IoctlRetInt(fd, getAPIVersion); err != nil || version != 12 {
		return fmt.Errorf("version %d: %w", version, err)
	}
	return nil
}

// TestUseless: a /dev/kvm useless to the guest's user, whatever the host's is.
func TestUseless(t *testing.T) {
	for name, c := range map[string]struct {
		mode   uint32 // 0: no device
		device uint64
		user   *syscall.Credential
		why    string
	}{
		"absent":             {0, 0, nil, "No such file or directory"},
		"forbidden":          {0o600, unix.Mkdev(10, 232), nobody, "Permission denied"},
		"for another group":  {0o660, unix.Mkdev(10, 232), nobody, "Permission denied"},
		"not for this group": {0o606, unix.Mkdev(10, 232), &syscall.Credential{Uid: 65534, Gid: 0}, "Permission denied"},
		"another device":     {0o666, unix.Mkdev(1, 3), nobody, "Inappropriate ioctl"},
	} {
		t.Run(name, func(t *testing.T) {
			g := guest(t, c.user)
			privateDevices(t)
			if c.mode != 0 {
				makeDevice(t, "/dev/kvm", c.mode, c.device)
			}
			if got, why := g.Choose(); got != TCG || why == nil || !strings.Contains(why.Error(), c.why) {
				t.Errorf("%s because of %v, want %s because of %q", got, why, TCG, c.why)
			}
		})
	}
}

// privateDevices puts a /dev without KVM over the host's until the test ends.
func privateDevices(t *testing.T) {
	t.Helper()
	if err := unix.Mount("tmpfs", "/dev", "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/dev", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	makeDevice(t, "/dev/null", 0o666, unix.Mkdev(1, 3))
	makeDevice(t, "/dev/urandom", 0o666, unix.Mkdev(1, 9))
}

func makeDevice(t *testing.T, path string, mode uint32, device uint64) {
	t.Helper()
	if err := errors.Join(unix.Mknod(path, unix.S_IFCHR, int(device)), unix.Chmod(path, mode)); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// scripted returns a guest whose QEMU is a shell script.
func scripted(t *testing.T, script string) Guest {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return Guest{QEMU: path, Says: word}
}

// TestOtherEnds: only the guest's announcement counts as a start.
func TestOtherEnds(t *testing.T) {
	for script, want := range map[string]string{
		"exit 0":                               TCG,
		"exit 1":                               TCG,
		"echo " + word + " >&2":                TCG,
		"echo " + word[1:]:                     TCG,
		"echo " + word + "; sleep 1000 & wait": KVM,
		"printf GU; printf EST; exit 1":        KVM, // said in two writes
	} {
		if got, why := scripted(t, script).Choose(); got != want || (got == KVM) != (why == nil) {
			t.Errorf("%s: %s because of %v, want %s", script, got, why, want)
		}
	}
	if got, why := (Guest{QEMU: "/no/qemu", Says: word}).Choose(); got != TCG || !errors.Is(why, os.ErrNotExist) {
		t.Errorf("no QEMU: %s because of %v", got, why)
	}
}

// TestHanging: a hanging QEMU is ended after the limit, with the processes started by QEMU.
func TestHanging(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "held")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	over := errors.New("the time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	said := make(chan string, 1)
	go func() {
		held, err := os.Open(fifo)
		if err != nil {
			cancel(err)
			return
		}
		defer func() { _ = held.Close() }()
		hung := make([]byte, len("hung"))
		_, _ = io.ReadFull(held, hung)
		cancel(over)
		rest, _ := io.ReadAll(held) // until no process has the descriptor any more
		said <- string(hung) + string(rest)
	}()
	g := scripted(t, "exec 9>"+fifo+"; (trap '' TERM HUP INT; printf hung >&9; while :; do sleep 1000; done) & wait")
	if err := g.Run(ctx, KVM); !errors.Is(err, over) {
		t.Fatalf("%v, want %v", err, over)
	}
	if got := <-said; got != "hung" {
		t.Errorf("QEMU said %q", got)
	}
}
