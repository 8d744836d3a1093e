package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
	"vmcryptfs/advice"
	"vmcryptfs/words"

	"golang.org/x/sys/unix"
)

// readyEnv names the descriptor on which a daemon reports to its parent, once.
const readyEnv = "VMCRYPTFS_READY_FD"

// answerTime bounds how long a new mount may take to answer its first request.
const answerTime = 10 * time.Second

// report is the daemon's one message: it serves, or why not.
type report struct {
	Ready bool `json:"ready"`
	// Name is what the log of the mount is called.
	Name string `json:"name,omitempty"`
	// Verified says that this host remembers these settings from now on.
	Verified bool `json:"verified,omitempty"`
	// Replaced says that the mount took the place of a dead one.
	Replaced bool `json:"replaced,omitempty"`
	// Interrupted says that a signal ended the start.
	Interrupted bool         `json:"interrupted,omitempty"`
	Warnings    []string     `json:"warnings,omitempty"`
	Failure     *daemonError `json:"failure,omitempty"`
}

// startDaemon runs the mount in a daemon and returns when it answers.
func (p *program) startDaemon(ctx context.Context, c mountConfig) error {
	reports, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reports.Close()
	daemon, err := runDaemon(c, theirs)
	if err != nil {
		return err
	}
	// An interrupted mount command leaves no daemon behind that nobody knows of.
	ctx, ignore := interruptible(ctx)
	defer ignore()
	stop := context.AfterFunc(ctx, func() { _ = daemon.Process.Signal(giveUp) })
	r, err := readReport(reports)
	inTime := stop() // from now on an interrupt comes too late
	if err != nil {
		return lostDaemon(daemon, err)
	}
	for _, w := range r.Warnings {
		fmt.Fprintln(p.stderr, "vmcryptfs: warning: "+words.Line(w))
	}
	if r.Failure != nil {
		if _, err := daemon.Process.Wait(); err != nil {
			return err
		}
		if r.Interrupted {
			return advice.New(interrupted(ctx, r.Failure), "nothing is mounted; run it again to mount")
		}
		return r.Failure
	}
	if !inTime && !r.Replaced {
		return advice.New(context.Cause(ctx), fmt.Sprintf("vmcryptfs umount %s ends the mount, if it is there", c.mountpoint))
	}
	return awaitAnswer(c.mountpoint)
}

// runDaemon starts the daemon of a mount, which tells report how it went; it takes over
// report.
func runDaemon(c mountConfig, report *os.File) (*exec.Cmd, error) {
	defer report.Close()
	env, err := daemonEnv()
	if err != nil {
		return nil, err
	}
	// The program as it runs now, not what lies at its path by now. No stream of ours
	// goes to the daemon, nor any descriptor that our caller left open: whoever waits for
	// its end, or for its lock, would wait for the unmount.
	if err := closeOnExec(); err != nil {
		return nil, err
	}
	daemon := exec.Command("/proc/self/exe", c.args()...)
	daemon.Args[0] = "vmcryptfs"
	daemon.Dir = "/"
	daemon.Env = env
	daemon.ExtraFiles = []*os.File{report}
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := daemon.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	return daemon, nil
}

// closeOnExec keeps the descriptors that are open now from children. Those given to
// one on purpose are copies.
func closeOnExec() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("open descriptors: %w", err)
	}
	for _, entry := range fds {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			return fmt.Errorf("open descriptors: %w", err)
		}
		unix.CloseOnExec(fd)
	}
	return nil
}

// daemonEnv is our environment, with its paths made absolute: the daemon works in /.
func daemonEnv() ([]string, error) {
	env := append(os.Environ(), readyEnv+"=3")
	for _, name := range []string{"VMCRYPTFS_KMS", "VMCRYPTFS_DEVKMS"} {
		path := os.Getenv(name)
		if path == "" {
			continue
		}
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, fmt.Errorf("$%s: %w", name, err)
		}
		env = append(env, name+"="+abs) // the last one counts
	}
	return env, nil
}

// lostDaemon waits for a daemon that closed its pipe and said nothing. It is given time to
// write to its log why it crashes.
func lostDaemon(daemon *exec.Cmd, cause error) error {
	kill := time.AfterFunc(answerTime, func() { _ = daemon.Process.Kill() })
	defer kill.Stop()
	err := daemon.Wait()
	dir, _ := logDir() // empty: then the message says less
	return fmt.Errorf("the daemon of the mount ended without a word (%v, %w): its log in %s may say why", err, cause, dir)
}

// readReport waits for the daemon's report.
func readReport(from io.Reader) (report, error) {
	var r report
	if err := json.NewDecoder(from).Decode(&r); err != nil {
		return report{}, err
	}
	if !r.Ready && r.Failure == nil {
		return report{}, errors.New("its report says nothing")
	}
	return r, nil
}

// awaitAnswer asks the mount itself whether it is there.
func awaitAnswer(mountpoint string) error {
	err := askMount(mountpoint, answerTime)
	if err != nil {
		return fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	return nil
}

// serveForeground is the mount itself, in the daemon as with --foreground.
func (p *program) serveForeground(ctx context.Context, c mountConfig) (err error) {
	out, err := openReport()
	if err != nil {
		return err
	}
	// A log that nobody reads any more and a terminal that was closed are no reasons to end.
	signal.Ignore(unix.SIGPIPE, unix.SIGHUP)
	if c.supervise {
		return p.superviseMount(c, out)
	}
	log, endLog := newLog(p.stderr)
	defer endLog()
	d := &daemon{config: c, log: log}
	if out == nil {
		return d.run(ctx, func() error { return nil })
	}
	defer out.Close()
	d.detached = true
	reported := false
	err = d.run(ctx, func() error {
		reported = true
		return writeReport(out, report{Ready: true, Name: d.name(), Verified: d.store.Verified(), Replaced: d.dead != nil, Warnings: d.warnings()})
	})
	if err != nil && !reported {
		d.log.Error("not mounted", "error", err)
		return writeReport(out, report{Failure: newDaemonError(err), Interrupted: errors.Is(err, errInterrupted)})
	}
	return err
}

// openReport is where the parent waits, or nil when there is none.
func openReport() (*os.File, error) {
	value, ok := os.LookupEnv(readyEnv)
	if !ok {
		return nil, nil
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, advice.Usagef("%s=%s is not a descriptor", readyEnv, value)
	}
	os.Unsetenv(readyEnv)
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "report"), nil
}

// writeReport writes r and closes to.
func writeReport(to *os.File, r report) error {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(r); err != nil {
		return err
	}
	_, err := to.Write(b.Bytes())
	return errors.Join(err, to.Close())
}
