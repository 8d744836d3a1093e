// Package accel chooses how QEMU runs the guests of a test: by KVM where a guest of the same kind
// was seen to run by KVM, else emulated. The existence of /dev/kvm proves little: QEMU's user may
// have no right to open the device, the device may be another one, KVM may refuse the CPU, and a
// guest may hang in KVM, a kernel even where a boot sector does not.
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

// limit is the time for a guest to come up by KVM, which is faster than emulation. Where KVM is
// emulated itself, a boot sector was seen to take from 5 seconds to for ever: a guest that comes
// up there may hang later, and a busy host loses little by emulation.
const limit = 3 * time.Second

// Guest is a virtual machine that announces its start.
type Guest struct {
	QEMU    string              // the program
	Options []string            // options except -accel: a machine like the tests', and the boot medium
	Says    string              // QEMU's standard output once the guest runs
	User    *syscall.Credential // whom QEMU runs as; nil: the caller
}

// Choose returns KVM if the guest runs by KVM, else TCG and the reason against KVM. Choose takes
// up to 3 seconds and needs root: call once for all tests.
func (g Guest) Choose() (accelerator string, why error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("the guest did not come up in %v", limit))
	defer cancel()
	if err := g.Run(ctx, KVM); err != nil {
		return TCG, err
	}
	return KVM, nil
}

// ChooseOnce is Choose of the guest returned by probe, at the first call alone. An error of probe
// is the reason against KVM.
func ChooseOnce(probe func() (Guest, error)) func() (accelerator string, why error) {
	return sync.OnceValues(func() (string, error) {
		g, err := probe()
		if err != nil {
			return TCG, err
		}
		return g.Choose()
	})
}

// errHeard is the reason for ending a guest that has announced its start.
var errHeard = errors.New("the guest runs")

// Run starts the guest, waits for the announcement, and ends QEMU: after the announcement, or
// with ctx, which is an error.
func (g Guest) Run(ctx context.Context, accelerator string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := exec.CommandContext(ctx, g.QEMU, append([]string{"-accel", accelerator}, g.Options...)...)
	var stderr bytes.Buffer
	c.Stdout, c.Stderr = &ear{word: g.Says, heard: func() { cancel(errHeard) }}, &stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Credential: g.User,
		Cloneflags: unix.CLONE_NEWPID, // processes started by QEMU end with QEMU,
		Pdeathsig:  unix.SIGKILL,      // and QEMU ends with this process
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
