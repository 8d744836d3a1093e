// Package fs is the filesystem: inodes, handles and the FUSE operations over a datastore.
//
// It implements go-fuse's raw interface operation by operation. Nothing is embedded that
// would answer an operation in its place, so nothing goes around encryption.
//
// # Inodes
//
// The kernel's node ids stand for a node each. They are BACKING's inode numbers, and the
// generation of each tells it from an inode that gets its number later; so the kernel's
// file handles (NFS, name_to_handle_at) hold when it has forgotten the inode, and after a
// remount: then BACKING is walked for the number, which finds the name too (places).
//
// A node has an O_PATH descriptor of its backing inode, and everything is done through
// descriptors: by name relative to that of a directory node, or on the descriptor itself
// (/proc/self/fd). No path is ever built from BACKING, and no symbolic link of BACKING is
// followed. Of nodes that nobody uses, as many descriptors stay open as there is room for
// (descriptors). The others are opened again by name, if that still is the inode: so who
// uses one holds it, and a node without a known name keeps its own. Nodes live while the
// kernel knows them (lookups), a handle is open, or a name in their directory is known.
//
// All handles of a node share one open backing file (openFile), opened by the first and
// closed by the last of them. Which form it has (encrypted, cleartext, none yet) is found
// at open, from its bytes and from the class of its names; a conversion puts the other
// form in its place under the feet of the handles. The inode number shown stays, and the
// backing inode that it belongs to is held, so no other file gets it.
//
// # Locks, in order
//
//  1. dirStream.mu of a directory being listed.
//  2. FS.names: shared by whatever resolves or changes a name, exclusive for a
//     conversion, and to give a file a name of another class. Conversions copy at most 1 MiB.
//  3. node.mu: guards which backing file the node has. Shared by I/O; exclusive for the
//     first open, the last close, a conversion, and for changes of a cleartext VMDK
//     descriptor, whose text is judged as a whole before it is written. Two nodes only
//     in the order in which they were made. A node is held before its mu is taken.
//  4. The range locks of fs/cryptfile.
//  5. clearFile.head, then OSFile.syncing; handles.mu, a leaf. node.formMu, over a read of
//     the file's first bytes. places.mu is held over a walk of BACKING, with no other lock
//     but those above.
//  6. table.mu, then descriptors.mu: no I/O under either. kept.mu, a leaf too.
//
// No lock is held while a key is fetched, which may take seconds: keys are had first, and
// what they were wanted for is checked again under the locks.
//
// # What must hold
//
//   - Content whose class is not clear lies in BACKING encrypted at every moment. Only
//     policy (Config.Unencrypted) serves cleartext found under such a name, be it open
//     already under another (lost.go says which names count).
//   - What is made for a caller has the caller's identity from the start, and nothing that
//     was made is given an owner, mode, ACL or label by its name.
//   - A cleartext file's first bytes never become the magic of an encrypted one.
//   - Without a key, or before the datastore's settings are proven, no file is created
//     and none changes its form: ENOKEY.
//   - ENOSYS is for what no file here supports, since the kernel does not ask again.
//
// # Where it differs from a local file system
//
// A buffered reader may see what was there before a direct write for a moment after that
// was answered, when more than 64 (mostWaiting) direct writes wait for the kernel's pages.
//
// What callers read from the kernel's page cache leaves no access time; what comes here
// does as BACKING's mount has it, and what the program itself reads does not.
//
// The inode number shown for a file that was converted is that of its first form only as
// long as the kernel remembers the file; a file handle that was got before the conversion
// is then stale. Of file systems mounted below BACKING, handles hold for one mount alone.
//
// Names are judged by the built-in rules until the settings are proven; a rename then goes
// by these too.
//
// Goroutines: one removes what a crash of this host left behind, and some may drop pages of
// the kernel after direct writes. They end by themselves, and with Close. KeepCensus is its
// caller's, and ends before Close.
package fs
