// Package moves has the moves of one datastore under way: each from its begin, or from where an
// earlier process left it, to its end, with pauses, refusals of BACKING and cancellations between. It
// also finds the files whose form or KEK is not what their places want, and moves them.
//
// The package promises: an id is listed in the settings before the first byte of its move is
// written, and leaves them after all is over. A refusal of BACKING pauses one move and is shown; the
// file serves on. A move towards clear that the sealed policy does not allow any more goes back. A
// request that ends early pauses the moves that it began.
//
// A [Manager] serves a mount and an unmounted BACKING alike: both have a fs.FS. It knows no socket, no
// FUSE and no command line. No lock of the package is held over I/O but Manager.stepping and
// Manager.out, for which no request about a file waits.
package moves
