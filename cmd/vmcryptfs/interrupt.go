package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// signalError says that a signal ended a command; it is a context.Canceled.
type signalError struct{ signal unix.Signal }

func (e *signalError) Error() string { return "interrupted" }
func (e *signalError) Unwrap() error { return context.Canceled }

// exitCode is what a shell makes of the signal.
func (e *signalError) exitCode() int { return 128 + int(e.signal) }

// interruptible gives a context that a signal ends: SIGINT, SIGTERM or the terminal's end.
func interruptible(parent context.Context) (context.Context, context.CancelFunc) {
	return untilSignal(parent, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
}

// untilSignal gives a context that one of signals ends; its cause then is a signalError. A second
// signal ends the process. One that is ignored, as nohup(1) and a shell's & have it, does neither.
func untilSignal(parent context.Context, signals ...os.Signal) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	got := make(chan os.Signal, 1)
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(got, s)
		}
	}
	go func() {
		select {
		case s := <-got:
			signal.Stop(got)
			cancel(&signalError{s.(unix.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(got)
		cancel(nil)
	}
}

// interrupted gives the signal that ended ctx in place of err, which it brought about.
func interrupted(ctx context.Context, err error) error {
	if cause, ok := context.Cause(ctx).(*signalError); ok && err != nil {
		return cause
	}
	return err
}
