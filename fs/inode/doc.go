// Package inode keeps the inodes of a mount: numbers, generations, names and descriptors.
//
// The kernel's node ids are BACKING's inode numbers. A number may be given to a later file; the
// generation, which goes with the id, differs then. So a file handle of the kernel's stays valid
// after the kernel has forgotten the inode, and after a remount: then BACKING is walked for the
// number. An inode has O_PATH descriptors of its backing files, one or several. The descriptors of
// unused inodes stay open while there is room. Once such a descriptor was closed, Pin opens the
// inode again by name, if the name still leads to the inode. A lost name of an inode counts for a
// while, since an open by the name may be under way.
//
// The package knows no file content, form, class or key, and no FUSE request: the Owner of an inode
// knows the rest of the file. The package opens backing files by O_PATH alone, and writes nothing.
package inode
