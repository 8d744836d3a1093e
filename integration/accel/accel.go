// Package accel chooses how QEMU runs the guests of a test: by KVM where a guest of their
// kind is seen to run by it, else emulated. That /dev/kvm exists says little: QEMU's user may
// not be allowed to open it, it may be another device, KVM may refuse the CPU, and a guest
// may hang in it, a kernel where a boot sector does not.
package accel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The accelerators, in the words of QEMU's option -accel.
const (
	KVM = "kvm"
	TCG = "tcg"
)

// limit is the time that a guest has to come up by KVM, which is faster than emulation. Where
// KVM is emulated itself a boot sector was seen to take from 5 seconds to for ever: a guest
// that comes up there may hang later, and a busy host loses little by emulation.
const limit = 3 * time.Second

// Guest is a virtual machine that says when it runs.
type Guest struct {
	QEMU    string              // the program
	Options []string            // its options but -accel: a machine as the tests', and what that boots
	Says    string              // what QEMU writes to its standard output once the guest runs
	User    *syscall.Credential // whom QEMU runs as; nil: the caller
}

// Choose gives KVM if the guest runs by it, and else TCG and why not KVM. It takes up to 3
// seconds, and root: ask once for all tests.
func (g Guest) Choose() (accelerator string, why error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("the guest did not come up in %v", limit))
	defer cancel()
	if err := g.Run(ctx, KVM); err != nil {
		return TCG, err
	}
	return KVM, nil
}

// ChooseOnce is Choose of the guest that probe gives, at the first call alone. An error of probe
// is why not KVM.
func ChooseOnce(probe func() (Guest, error)) func() (accelerator string, why error) {
	return sync.OnceValues(func() (string, error) {
		g, err := probe()
		if err != nil {
			return TCG, err
		}
		return g.Choose()
	})
}

// errHeard is why a guest that has said its word is ended.
var errHeard = errors.New("the guest runs")

// Run starts the guest, waits until it says that it runs, and ends QEMU: then, or with ctx,
// which is an error.
func (g Guest) Run(ctx context.Context, accelerator string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := exec.CommandContext(ctx, g.QEMU, append([]string{"-accel", accelerator}, g.Options...)...)
	var stderr bytes.Buffer
	c.Stdout, c.Stderr = &ear{word: g.Says, heard: func() { cancel(errHeard) }}, &stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Credential: g.User,
		Cloneflags: unix.CLONE_NEWPID, // what QEMU starts ends with it,
		Pdeathsig:  unix.SIGKILL,      // and QEMU with this process
	}
	c.WaitDelay = time.Second
	err := c.Run()
	switch cause := context.Cause(ctx); {
	case cause == errHeard:
		return nil
	case cause != nil:
		err = cause
	case err == nil:
		err = fmt.Errorf("it ended before the guest said %q", g.Says)
	}
	return fmt.Errorf("%s -accel %s: %w\n%s", g.QEMU, accelerator, err, bytes.TrimSpace(stderr.Bytes()))
}

// ear listens for a word.
type ear struct {
	word  string
	said  bytes.Buffer
	heard func()
}

func (e *ear) Write(p []byte) (int, error) {
	e.said.Write(p)
	if bytes.Contains(e.said.Bytes(), []byte(e.word)) {
		e.heard()
	}
	return len(p), nil
}
