// Package daemon is one mount as a process: Start runs it in the background, Serve runs it
// here, and a Config says which mount it is. A daemon opens the datastore and the way to its
// keys, puts the file system of package fs at its place, answers on the control socket
// (fs/admin), and takes all that apart when the mount has ended. A supervisor, which holds no
// key, mounts again when a daemon is gone.
//
// What is promised: Start returns when the mount answers, or says why there is none and leaves
// none behind. A dead mount keeps callers from the bare directory until another mount takes its
// place. A mount comes up without its key servers, serves cleartext, and goes on asking. The
// process is hardened before a key comes into its memory.
//
// The package knows nothing of flags, pages and exit codes: a Program puts errors into words
// for it. It knows nothing of how files are laid out and encrypted either. Commands without a
// daemon share its key source, its logs and its paths, and ask here for a daemon (Find) and
// whether a mount is dead (IsDead).
//
// Lock order: modes, then mu. A daemon waits for its goroutines before it ends.
package daemon
