// Package fs is the filesystem: nodes, handles and the FUSE operations over a datastore.
//
// The kernel sends each operation on a file as a FUSE request, and raw answers the request: raw
// implements go-fuse's raw interface operation by operation. raw embeds no type with answers of its
// own, so no operation goes around encryption.
//
// # Inodes
//
// A node (node.go) is an inode.Inode with the mount's knowledge of its file. The kernel names a
// node by a node id and a generation; package fs/inode makes both from BACKING's inode number and
// birth. So the kernel's file handles (NFS, name_to_handle_at) stay valid after the kernel has
// forgotten the inode, and after a remount: then BACKING is walked for the number, which finds the
// name too (inode.Table.Find).
//
// A node has an O_PATH descriptor of its backing inode, and every operation goes through
// descriptors: by name relative to a directory's descriptor, or on the descriptor itself
// (/proc/self/fd). No path is ever built from BACKING, and no symbolic link of BACKING is followed.
// The descriptors of unused nodes stay open while there is room; a closed one is opened again by
// name, if the name still leads to the inode. So an operation holds each node in use (Hold), and a
// node without a known name keeps its descriptor. A node lives while the kernel knows the node
// (lookups), a handle is open, or a name in the node's directory is known.
//
// All handles of a node share one open backing file (content.File), opened by the first and closed
// by the last of the handles. The form of the file (encrypted, cleartext, none yet) is found at
// open, from the file's bytes and from the class of its names. A conversion exchanges the form
// under the feet of the handles. The inode number shown stays, and the backing inode with that
// number is kept, so that no other file gets the number.
//
// # Places
//
// Class and KEK of a name follow from the policy of the directory (layout.Places), which the path below
// BACKING names. The path is had from the table of inodes (places.go). A place that makes names clear holds
// only with its tag, which is read for each verdict (placetag.go). Settings name places by path, so a
// directory takes its places along: the settings are sealed before and after the rename (relocation.go,
// placerename.go).
//
// # Locks, in order
//
//  0. FS.placing: held while the paths of places change, over both changes of the settings and the rename
//     between. Nothing of the list is held before, and only renames and removals of directories that
//     are places, or hold places, wait.
//  1. listing.mu of a directory being listed; node.settling, while a node's form is settled. Nothing
//     holds both.
//  2. FS.names: shared by each operation that resolves or changes a name; exclusive for a
//     conversion, to give a file a name of another class, to begin and end a move, to rename a moving
//     file to another directory or to remove it, for FindMoves in one directory, and for TakeUpSettings,
//     which replaces the rules. Conversions copy at most 1 MiB.
//  3. Mu of a node (inode.Inode.Mu): guards which backing file the node has. Shared by I/O;
//     exclusive for the first open, the last close, a conversion, and for changes of a cleartext
//     VMDK descriptor, whose text is judged as a whole before a write. Two nodes are locked in the
//     order in which they were made (inOrder). A node is pinned (Pin) before its Mu is locked.
//  4. The kernel's lock of a header (OSFile.LockHeader of fs/cryptfile), to repair the header of an
//     open file; then the range locks of fs/rangelock, inside an open file. A rekey holds the lock
//     of a header while it may fetch a key, so the wait here is bounded (content.File.Heal).
//  5. node.formMu, over a read of the file's first bytes. clearFile.head of fs/content, then
//     OSFile.syncing of fs/cryptfile. The table's lock of its paths (finder), over a walk of
//     BACKING; only the locks above are held then.
//  6. inode.Table.mu, then descriptors.mu. No I/O is done under either, and no descriptor closed:
//     descriptors given up under Table.mu are closed after Table.mu is unlocked.
//  7. Leaves, under which no other lock is taken: handles.mu, told.mu, failures.mu, the lock of the
//     census, spelled.mu of fs/inode, and reserves.mu, over statfs(2).
//
// FS.mode, over the start and the end of the sweep, is locked with none of these held.
// docs/architecture.md has the order for the whole program.
//
// No lock but FS.placing is held while a key is fetched, which may take seconds: an operation gets its key first,
// and checks the reason for the key again under the locks.
//
// # What must hold
//
//   - Content whose class is not clear lies in BACKING encrypted at every moment. Only Config.Unencrypted,
//     or a place that adopts (adoption.go), serves cleartext found under such a name, even if the file is open under
//     another name already (fs/inode/lost.go says which names count).
//   - A file made for a caller has the caller's identity from the start. No file is given an owner,
//     mode, ACL or label by its name.
//   - A cleartext file's first bytes never become the magic of an encrypted one.
//   - A new file is under the KEK of its place, or is not made.
//   - Without a key, or before the datastore's settings are proven, no file is created and none
//     changes its form: ENOKEY.
//   - ENOSYS means: no file here supports the operation. The kernel does not ask again.
//
// # Where it differs from a local file system
//
// After a direct write was answered, a buffered reader may see the former bytes for a moment, when
// more than 64 (mostWaiting) direct writes wait for the kernel's pages.
//
// Reads from the kernel's page cache leave no access time. Reads by requests do as BACKING's mount
// has it; the program's own reads leave none.
//
// A converted file shows the inode number of its first form only for as long as the kernel
// remembers the file; a file handle from before the conversion is then stale. File handles in file
// systems mounted below BACKING are valid for one mount alone.
//
// Names are judged by the built-in rules until the settings are proven; a rename then goes by these
// rules too.
//
// Goroutines: one removes the leftovers of a crash of this host, and some may drop pages of the
// kernel after direct writes. All end by themselves, and with Close. Census().Keep runs in
// its caller's goroutine, and ends before Close.
package fs
