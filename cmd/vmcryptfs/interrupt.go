package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// signalError means the end of a command by a signal. errors.Is finds context.Canceled.
type signalError struct{ signal unix.Signal }

func (e *signalError) Error() string { return "interrupted" }
func (e *signalError) Unwrap() error { return context.Canceled }

// exitCode is the shell's exit code of a command ended by the signal.
func (e *signalError) exitCode() int { return 128 + int(e.signal) }

// interruptible gives a context that ends on SIGINT, SIGTERM or SIGHUP, the end of the terminal.
func interruptible(parent context.Context) (context.Context, context.CancelFunc) {
	return untilSignal(parent, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
}

// untilSignal gives a context that ends on one of signals, with a signalError as the cause. A
// second signal ends the process. A signal ignored from the start (nohup(1), a shell's &) has no
// effect.
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

// interrupted gives the signal that ended ctx in place of err, the consequence. Without a signal,
// interrupted gives err.
func interrupted(ctx context.Context, err error) error {
	if cause, ok := context.Cause(ctx).(*signalError); ok && err != nil {
		return cause
	}
	return err
}
