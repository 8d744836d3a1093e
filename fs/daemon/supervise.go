package daemon

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/fs/mounts"
)

const (
	// maxPause is the longest pause between two attempts to mount again.
	maxPause = 30 * time.Second
	// steadyTime is how long a daemon lives whose end is not the last one's cause again.
	steadyTime = time.Minute
	// stopTime bounds the time from a signal to the end of a daemon caused by the signal. A daemon
	// with a mount in use serves on; an end after stopTime has another cause.
	stopTime = 10 * time.Second
)

// supervisor is the parent of a mount's daemon. After the end of a daemon without an unmount, the
// supervisor starts another daemon, whose mount takes the place of the dead one. Until then the
// dead mount keeps callers from the bare directory. A supervisor holds no key.
type supervisor struct {
	config  Config
	log     *slog.Logger
	signals chan os.Signal // signals for the end of the mount
}

// errStopped: a signal asked for the end, and nothing is to be mounted again.
var errStopped = errors.New("stopped")

// superviseMount runs mount --supervise in this process. out is the pipe on which the mount
// command waits for the report of the first daemon.
func superviseMount(c Config, p Program, out *os.File) error {
	if out == nil {
		return advice.Usagef("--supervise is for the background: who starts vmcryptfs with --foreground supervises it")
	}
	c.Supervise = false
	if path, err := filepath.EvalSymlinks(c.Backing); err == nil {
		c.Backing = path // a dead mount is known by its source
	}
	log, endLog := NewLog(p.Stderr)
	defer endLog()
	if err := lowerOOMScore(); err != nil {
		log.Info("this process may be killed for memory as any other", "error", err)
	}
	s := &supervisor{config: c, log: log, signals: make(chan os.Signal, 2)} // giveUp keeps no other out
	signal.Notify(s.signals, unix.SIGTERM, unix.SIGINT, giveUp)
	defer signal.Stop(s.signals)
	daemon, r, _, err := s.start()
	if err != nil {
		return errors.Join(err, writeReport(out, report{Failure: p.Explain(err)}))
	}
	s.config.Again = true
	if m, err := mounts.Find(c.Mountpoint); err == nil {
		s.config.Mountpoint = m.Mountpoint // no link has to be followed to a dead mount
	}
	if r.Failure == nil {
		if _, err := openLog(r.Name); err != nil {
			s.log.Warn("no log file", "error", err)
		}
	}
	err = writeReport(out, r)
	if err != nil && !r.Replaced { // nobody else knows of the mount
		_ = daemon.Process.Signal(unix.SIGTERM) // fails for an ending daemon
		_, waitErr := s.tell(daemon, daemon.Wait)
		return errors.Join(err, waitErr)
	}
	return s.run(daemon)
}

// run serves on until a daemon has unmounted.
func (s *supervisor) run(daemon *exec.Cmd) error {
	pause := time.Duration(0)
	for {
		started := time.Now()
		told, err := s.tell(daemon, daemon.Wait)
		if err == nil {
			return nil
		}
		if time.Since(told) < stopTime {
			s.log.Error("the daemon is gone, and was to end; not mounting again", "mountpoint", s.config.Mountpoint, "error", err)
			return s.clear()
		}
		if time.Since(started) >= steadyTime {
			pause = 0
		}
		s.log.Error("the daemon is gone", "mountpoint", s.config.Mountpoint, "error", err, "pause", pause)
		daemon, pause, err = s.restart(pause)
		switch {
		case errors.Is(err, errStopped):
			return s.clear()
		case errors.Is(err, mounts.ErrNotMounted):
			s.log.Info("unmounted by somebody; not mounting again", "mountpoint", s.config.Mountpoint)
			return nil
		case err != nil:
			return err
		}
	}
}

// clear unmounts the dead mount left by a daemon, where there is one. No mount follows.
func (s *supervisor) clear() error { return ClearDead(s.config.Mountpoint, s.config.Backing) }

// tell passes signals on to the daemon until wait returns. told is the time of the last signal, or
// the zero time.
func (s *supervisor) tell(daemon *exec.Cmd, wait func() error) (told time.Time, err error) {
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	for {
		select {
		case sig := <-s.signals:
			if sig != giveUp {
				told = time.Now()
			} else if s.config.Again { // giveUp concerns only the first daemon
				continue
			}
			_ = daemon.Process.Signal(sig) // fails for an ending daemon
		case err := <-ended:
			return told, err
		}
	}
}

// restart mounts again after pause, and after ever longer pauses until a mount succeeds. restart
// returns the pause before the next attempt. The death of a daemon leaves a dead mount: where
// there is none, somebody has unmounted (mounts.ErrNotMounted).
func (s *supervisor) restart(pause time.Duration) (*exec.Cmd, time.Duration, error) {
	for {
		select {
		case sig := <-s.signals:
			if sig != giveUp {
				return nil, 0, errStopped
			}
		case <-time.After(pause):
		}
		pause = min(max(2*pause, time.Second), maxPause)
		daemon, err := s.replace()
		if daemon != nil {
			return daemon, pause, nil
		}
		if errors.Is(err, errStopped) || errors.Is(err, mounts.ErrNotMounted) || errors.Is(err, unix.EBUSY) && !errors.Is(err, ErrSilent) {
			return nil, 0, err
		}
		s.log.Error("not mounted; trying again", "mountpoint", s.config.Mountpoint, "error", err, "pause", pause)
	}
}

// replace tries once to mount in the place of the dead mount. errStopped: a signal asked for the
// end.
func (s *supervisor) replace() (*exec.Cmd, error) {
	m, err := mounts.Find(s.config.Mountpoint)
	if err == nil {
		err = checkDead(m, s.config.Backing)
	}
	if err != nil {
		return nil, err
	}
	daemon, r, told, err := s.start()
	if err == nil && r.Failure != nil {
		err = errors.Join(r.Failure, daemon.Wait())
	}
	switch {
	case err == nil:
		return daemon, nil
	case !told.IsZero(), r.Interrupted, daemon != nil && endedBy(daemon, unix.SIGTERM):
		return nil, errStopped
	}
	// An unmount by somebody ends all attempts, whatever error the daemon met.
	if _, gone := mounts.Find(s.config.Mountpoint); errors.Is(gone, mounts.ErrNotMounted) {
		return nil, gone
	}
	return nil, err
}

// endedBy reports whether the process of c, already waited for, was ended by sig.
func endedBy(c *exec.Cmd, sig syscall.Signal) bool {
	status, ok := c.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == sig
}

// start starts a daemon and waits for the report. told is the time of a signal for the end of the
// daemon, or the zero time.
func (s *supervisor) start() (daemon *exec.Cmd, r report, told time.Time, err error) {
	reports, theirs, err := os.Pipe()
	if err != nil {
		return nil, report{}, told, err
	}
	defer reports.Close()
	daemon, err = runDaemon(s.config, theirs)
	if err != nil {
		return nil, report{}, told, err
	}
	told, err = s.tell(daemon, func() (err error) {
		r, err = readReport(reports)
		return err
	})
	if err != nil {
		return daemon, report{}, told, lostDaemon(daemon, err)
	}
	if r.Verified && !s.config.Copy { // otherwise this host does not remember the settings yet, and the next daemon needs Trust
		s.config.Trust = false
	}
	return daemon, r, told, nil
}
