package daemon

import (
	"context"
	"errors"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Inherited serves the mount of the Config from the parent of this process, as Start and a
// supervisor do. Without such a parent, Inherited does nothing and ok is false. The mount command
// calls Inherited before parsing arguments.
func Inherited(ctx context.Context, p Program) (ok bool, err error) {
	c, ok, err := handedConfig()
	if !ok {
		return false, nil
	}
	if err != nil {
		out, outErr := openReport()
		if out == nil {
			return true, errors.Join(err, outErr)
		}
		return true, errors.Join(err, writeReport(out, report{Failure: p.Explain(err)}))
	}
	return true, Serve(ctx, c, p)
}

// Program is the part of the surrounding program that a daemon needs.
type Program struct {
	// Stderr is where the log goes.
	Stderr *os.File
	// Explain puts an error into words for the parent of the daemon.
	Explain func(error) *Failure
}

// Serve serves the mount c and returns when the mount has ended. Where a parent waits for a
// report, the log goes to the log file of the mount, and an error before the mount is there goes
// only to the parent.
func Serve(ctx context.Context, c Config, p Program) (err error) {
	out, err := openReport()
	if err != nil {
		return err
	}
	// A closed terminal, or a log without a reader, does not end a mount.
	signal.Ignore(unix.SIGPIPE, unix.SIGHUP)
	if c.Supervise {
		return superviseMount(c, p, out)
	}
	log, endLog := NewLog(p.Stderr)
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
		return writeReport(out, report{Failure: p.Explain(err), Interrupted: errors.Is(err, errInterrupted)})
	}
	return err
}
