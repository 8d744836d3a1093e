// Package policy changes and shows what new files of a place get: the policies and places in the
// sealed settings of a datastore (layout.Policy, layout.Place), and the tags in BACKING by which
// places that make names clear are known.
//
// A request is checked against the settings of the moment at which it is sealed, with no other
// change under way (datastore.Store.Edit), so of two requests at once none is lost. The order of
// what is made is that of a crash that may come at any time:
//
//   - a KEK is made, activated, read back and cached before the settings name it;
//   - a tag is durable before the settings name a place that needs it, and is removed after they
//     no longer do. A tag without its place says nothing, and a place without its tag encrypts;
//   - a place that comes to encrypt is sealed with `adopt`, so that no disk of a running VM is
//     refused. Then its directory is looked through, and `adopt` is taken back where nothing lies in
//     clear.
//
// Directories of BACKING are opened by descriptor, beneath it, with no symbolic link followed. No
// file of BACKING is changed but the tags. Functions are safe for concurrent use.
package policy
