package daemon

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"vmcryptfs/advice"

	"golang.org/x/sys/unix"
)

// answerTime bounds how long a new mount may take to answer its first request.
const answerTime = 10 * time.Second

// Start runs the mount in a daemon and returns when it answers. Where ctx ends before that, the
// start ends too, and the cause of ctx is the error. warn is called with each warning for a
// person.
func Start(ctx context.Context, c Config, warn func(string)) error {
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
	stop := context.AfterFunc(ctx, func() { _ = daemon.Process.Signal(giveUp) })
	r, err := readReport(reports)
	inTime := stop() // from now on an interrupt comes too late
	if err != nil {
		return lostDaemon(daemon, err)
	}
	for _, w := range r.Warnings {
		warn(w)
	}
	if r.Failure != nil {
		if _, err := daemon.Process.Wait(); err != nil {
			return err
		}
		if r.Interrupted {
			err = r.Failure
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return advice.New(err, "nothing is mounted; run it again to mount")
		}
		return r.Failure
	}
	if !inTime && !r.Replaced {
		return advice.New(context.Cause(ctx), fmt.Sprintf("vmcryptfs umount %s ends the mount, if it is there", c.Mountpoint))
	}
	return awaitAnswer(c.Mountpoint)
}

// runDaemon starts the daemon of a mount, which tells report how it went; it takes over
// report.
func runDaemon(c Config, report *os.File) (*exec.Cmd, error) {
	defer report.Close()
	config, err := c.encode()
	if err != nil {
		return nil, err
	}
	env, err := daemonEnv()
	if err != nil {
		return nil, err
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	defer ours.Close()
	// The program as it runs now, not what lies at its path by now. No stream of ours
	// goes to the daemon, nor any descriptor that our caller left open: whoever waits for
	// its end, or for its lock, would wait for the unmount.
	if err := closeOnExec(); err != nil {
		return nil, err
	}
	daemon := exec.Command("/proc/self/exe", c.shown()...)
	daemon.Args[0] = "vmcryptfs"
	daemon.Dir = "/"
	daemon.Env = env
	daemon.ExtraFiles = []*os.File{report, theirs} // from 3 on: see daemonEnv
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := daemon.Start(); err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	// A daemon that is gone before it has read all is found by its report, or by having none.
	_, _ = ours.Write(config)
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

// daemonEnv is our environment, with its paths made absolute, since the daemon works in /, and
// with the descriptors that runDaemon gives to the daemon.
func daemonEnv() ([]string, error) {
	env := append(os.Environ(), readyEnv+"=3", configEnv+"=4")
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
	dir, _ := LogDir() // empty: then the message says less
	return fmt.Errorf("the daemon of the mount ended without a word (%v, %w): its log in %s may say why", err, cause, dir)
}

// awaitAnswer asks the mount itself whether it is there.
func awaitAnswer(mountpoint string) error {
	err := Ask(mountpoint, answerTime)
	if err != nil {
		return fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	return nil
}
