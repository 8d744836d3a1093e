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

// answerTime bounds how long a new mount may take for its first answer.
const answerTime = 10 * time.Second

// Start runs the mount in a daemon and returns when the mount answers requests. A ctx that ends
// earlier ends the start, and the cause of ctx is the error. Start calls warn with each warning
// for a person. An error in the words of the program is a *Failure.
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
	// An interrupted mount command leaves no forgotten daemon.
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

// runDaemon starts the daemon of a mount. The daemon writes to report. runDaemon closes report in
// this process.
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
	// /proc/self/exe is the program as it runs now, even after an upgrade of the program file. The
	// daemon gets no stream of ours and no descriptor left open by our caller: a caller waiting
	// for the end of a pipe, or for a lock, would wait for the unmount.
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
	theirs.Close() // else a daemon that ends before it has read all would leave the write waiting
	// An early end of the daemon is found by its report, or by the lack of a report.
	_, _ = ours.Write(config)
	return daemon, nil
}

// closeOnExec keeps the open descriptors from child processes. Descriptors given to a child on
// purpose are copies.
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

// daemonEnv gives our environment for the daemon: paths are absolute, since the daemon works in /,
// and the numbers of the two descriptors from runDaemon are added.
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

// lostDaemon waits for the end of a daemon after the pipe closed without a report. The daemon has
// answerTime to log the cause of a crash; then lostDaemon kills the daemon.
func lostDaemon(daemon *exec.Cmd, cause error) error {
	kill := time.AfterFunc(answerTime, func() { _ = daemon.Process.Kill() })
	defer kill.Stop()
	err := daemon.Wait()
	dir, _ := LogDir() // empty: then the message says less
	return fmt.Errorf("the daemon of the mount ended without a word (%v, %w): its log in %s may say why", err, cause, dir)
}

// awaitAnswer asks the mount at mountpoint for an answer, and waits for at most answerTime.
func awaitAnswer(mountpoint string) error {
	err := Ask(mountpoint, answerTime)
	if err != nil {
		return fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	return nil
}
