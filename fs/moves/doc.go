// Package moves has the moves of one datastore under way: each from its begin, or from where an
// earlier process left it, to its end, with pauses, refusals of BACKING and cancellations between.
//
// The package promises: an id is listed in the settings before the first byte of its move is
// written, and leaves them after all is over. A refusal of BACKING pauses one move and is shown; the
// file serves on. A move towards clear that the sealed policy does not allow any more goes back.
//
// A [Manager] serves a mount and an unmounted BACKING alike: both have a fs.FS. It knows no socket, no
// FUSE and no command line.
package moves
