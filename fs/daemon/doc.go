// Package daemon is one mount as a process: Start runs the process in the background, Serve serves
// in the calling process, and a Config describes the mount. A daemon opens the datastore and the
// way to the keys, mounts the file system of package fs, answers on the control socket (fs/admin),
// and closes everything when the mount has ended. A supervisor mounts again after the death of a
// daemon, and holds no key.
//
// Promises: Start returns when the mount answers. A start that fails leaves no mount behind; for
// an interrupt too late, the error names the command for ending the mount. A dead mount keeps
// callers from the bare directory until another mount takes the place. A mount comes up without
// key servers, serves cleartext, and keeps asking the servers. The process is hardened before the
// first key enters memory.
//
// The package knows nothing of flags, pages and exit codes: a Program puts errors into words. The
// package knows nothing of the layout and encryption of files either. Commands without a daemon
// share the key source, the logs and the paths of this package, find a daemon by Find, and
// recognise a dead mount by IsDead.
//
// Lock order: modes, then mu. A daemon waits for all goroutines before the end.
package daemon
