package main

import (
	"errors"

	"golang.org/x/sys/unix"

	"vmcryptfs/advice"
	"vmcryptfs/byname"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/daemon"
	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/fs/work"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Exit codes: a contract (docs/operations.md).
const (
	exitDone       = 0
	exitFailed     = 1
	exitUsage      = 2
	exitKeys       = 3 // keys or KMS
	exitDamage     = 4 // damage or tampering
	exitNotMounted = 5
	exitBusy       = 6
)

// explain gives err in the form of a daemon's report to the parent: the words of say, and the exit
// code.
func explain(err error) *daemon.Failure {
	s := say(err)
	return &daemon.Failure{Message: s.what, Do: s.do, Chain: s.chain, Code: exitCode(err)}
}

// exitCode gives the exit code for err. No other function makes exit codes of errors.
func exitCode(err error) int {
	var failure *daemon.Failure
	var usage *advice.UsageError
	var settings *layout.SettingsError
	var unfit *byname.UnfitError
	var ended *signalError
	var differs *differsError
	switch {
	case err == nil, errors.Is(err, errHelped):
		return exitDone
	case errors.As(err, &failure):
		return failure.Code
	case errors.As(err, &ended):
		return ended.exitCode()
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &settings) && !errors.Is(err, layout.ErrUnsupported), errors.As(err, &unfit), errors.As(err, &differs):
		return exitDamage
	case isAny(err, layout.ErrDamaged, layout.ErrIllFormed, keys.ErrTampered, keys.ErrSeal, datastore.ErrUntrusted, errScanned):
		return exitDamage
	case isAny(err, keys.ErrNoKey, keys.ErrKeyLength):
		return exitKeys
	case errors.Is(err, mounts.ErrNotMounted):
		return exitNotMounted
	case isAny(err, datastore.ErrBusy, admin.ErrInUse, work.ErrBusy, unix.EBUSY):
		return exitBusy
	}
	return exitFailed
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
