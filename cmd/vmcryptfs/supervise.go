package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin/mounts"
)

const (
	// maxPause is the longest pause between two attempts to mount again.
	maxPause = 30 * time.Second
	// steadyTime is how long a daemon lives whose end is not the last one's cause again.
	steadyTime = time.Minute
)

// supervisor is the parent of a mount's daemon. When that ends and did not unmount, it
// takes the dead mount out of sight and starts another daemon. It holds no key.
type supervisor struct {
	config  mountConfig
	log     *slog.Logger
	signals chan os.Signal // those that end the mount
}

// errStopped: a signal ended the supervisor while no daemon ran.
var errStopped = errors.New("stopped")

// superviseMount is mount --supervise in its own process. out is where the mount command
// waits for what becomes of the first daemon.
func (p *program) superviseMount(c mountConfig, out *os.File) error {
	if out == nil {
		return usagef("--supervise is for the background: who starts vmcryptfs with --foreground supervises it")
	}
	c.supervise = false
	s := &supervisor{config: c, log: slog.New(slog.NewTextHandler(p.stderr, nil)), signals: make(chan os.Signal, 1)}
	signal.Notify(s.signals, unix.SIGTERM, unix.SIGINT)
	defer signal.Stop(s.signals)
	daemon, r, err := s.start()
	if err != nil {
		return errors.Join(err, writeReport(out, report{Failure: &daemonError{Message: oneLine(err.Error()), Code: exitCode(err)}}))
	}
	if r.Failure == nil {
		if _, err := openLog(r.Datastore); err != nil {
			s.log.Warn("no log file", "error", err)
		}
	}
	if err := writeReport(out, r); err != nil {
		return err
	}
	s.config.trust = false // what was trusted once is remembered
	return s.run(daemon)
}

// run serves on until a daemon has unmounted.
func (s *supervisor) run(daemon *exec.Cmd) error {
	pause := time.Duration(0)
	for {
		started := time.Now()
		err := s.await(daemon)
		if err == nil {
			return nil
		}
		if time.Since(started) >= steadyTime {
			pause = 0
		}
		s.log.Error("the daemon is gone; mounting again", "mountpoint", s.config.mountpoint, "error", err, "pause", pause)
		daemon, pause, err = s.restart(pause)
		if errors.Is(err, errStopped) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// await waits for the end of the daemon, which is told what we are told.
func (s *supervisor) await(daemon *exec.Cmd) error {
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	for {
		select {
		case told := <-s.signals:
			_ = daemon.Process.Signal(told) // in vain if it is ending
		case err := <-ended:
			return err
		}
	}
}

// restart mounts again, after a pause and then with ever longer ones, until that succeeds;
// it gives the pause before a next time.
func (s *supervisor) restart(pause time.Duration) (*exec.Cmd, time.Duration, error) {
	for {
		select {
		case <-s.signals:
			return nil, 0, errStopped
		case <-time.After(pause):
		}
		pause = min(max(2*pause, time.Second), maxPause)
		if err := detachDead(s.config.mountpoint); err != nil {
			return nil, 0, err
		}
		daemon, r, err := s.start()
		if err == nil && r.Failure != nil {
			err = errors.Join(r.Failure, daemon.Wait())
		}
		if err == nil {
			return daemon, pause, nil
		}
		s.log.Error("not mounted; trying again", "mountpoint", s.config.mountpoint, "error", err, "pause", pause)
	}
}

// start starts a daemon and waits for its report.
func (s *supervisor) start() (*exec.Cmd, report, error) {
	reports, theirs, err := os.Pipe()
	if err != nil {
		return nil, report{}, err
	}
	defer reports.Close()
	daemon, err := runDaemon(s.config, theirs)
	if err != nil {
		return nil, report{}, err
	}
	r, err := readReport(reports)
	if err != nil {
		return nil, report{}, lostDaemon(daemon, err)
	}
	return daemon, r, nil
}

// detachDead takes a mount out of sight whose daemon is gone. Who has files of it open gets
// errors from them until they are closed.
func detachDead(mountpoint string) error {
	m, err := mounts.Find(mountpoint)
	if errors.Is(err, mounts.ErrNotMounted) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := askMount(m.Mountpoint, deadTime); !errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("%s: %w", m.Mountpoint, occupied(m.Mountpoint))
	}
	return mounts.Unmount(m, true)
}
