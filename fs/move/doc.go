// Package move is one file on its way to another form or another DEK, while the file is in use
// (docs/on-disk-format.md, "Moves").
//
// S is the backing file that the file was, D the one that it becomes. The content below the
// watermark W lies in S, the content from W on in D. A move goes downwards: a zone of D below W is
// filled from S, D is synced, W goes down to the zone's lower end in a durable record, and S is cut
// off at W. So S is a run of whole units that only shrinks, and D has the end of the file from the
// beginning.
//
// A [Pair] is the content of such a file: what readers and writers of any other file call a file.
// [Pair.Step] takes the move one zone further, beside them; [Pair.Back] leads back. The functions
// of begin.go and end.go make a Pair of a file, and a file of a Pair.
//
// The package promises, at a crash between any two calls: what was answered durable is there, what
// is below the recorded W is whole in S, what is above it is whole in D, and nothing is in S that
// was recorded as moved and cut off.
//
// The package knows no name but the two of a [Dir], no policy, no KEK, no settings and no FUSE.
package move
