// Package fs is the filesystem: inodes, handles and the FUSE operations over a datastore.
//
// It implements go-fuse's raw interface operation by operation. Nothing is embedded that
// would answer an operation in its place, so nothing goes around encryption.
//
// # Inodes
//
// The kernel's node ids stand for a node each. A node holds an O_PATH descriptor of its
// backing inode, and everything is done through descriptors: by name relative to that of
// a directory node, or on the descriptor itself (/proc/self/fd). No path is ever built
// from BACKING, and no symbolic link of BACKING is followed. Nodes live while the kernel
// knows them (lookups), a handle is open, or a name in their directory is known.
//
// All handles of a node share one open backing file (openFile), opened by the first and
// closed by the last of them. Which form it has (encrypted, cleartext, none yet) is found
// at open, from its bytes and from the class of its names; a conversion puts the other
// form in its place under the feet of the handles. The inode number shown stays, and the
// backing inode that it belongs to is held, so no other file gets it.
//
// # Locks, in order
//
//  1. FS.names: shared by whatever resolves or changes a name, exclusive for a
//     conversion. Conversions copy at most 1 MiB.
//  2. node.mu: guards which backing file the node has. Shared by I/O, exclusive to open,
//     close and convert, and for changes of a cleartext VMDK descriptor, whose text is
//     judged as a whole before it is written. Two nodes only in the order of their ids.
//  3. The range locks of fs/cryptfile.
//  4. table.mu, handles.mu, dirStream.mu, clearFile.head, node.formMu: leaves.
//
// No lock is held while a key is fetched, which may take seconds: keys are had first, and
// what they were wanted for is checked again under the locks.
//
// # What must hold
//
//   - Content whose class is not clear lies in BACKING encrypted at every moment. Only
//     policy (Config.Unencrypted) serves cleartext found under such a name.
//   - A cleartext file's first bytes never become the magic of an encrypted one.
//   - Without a key, or before the datastore's settings are proven, no file is created
//     and none changes its form: ENOKEY.
//   - ENOSYS is for what no file here supports, since the kernel does not ask again.
//
// The one goroutine, which removes what a crash of this host left behind, ends by itself
// or by Close.
package fs
