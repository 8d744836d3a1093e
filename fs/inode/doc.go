// Package inode keeps the inodes of a mount: numbers, generations, names and descriptors.
//
// The kernel's node ids are BACKING's inode numbers, and the generation of each tells its inode
// from one that gets the number later. So a file handle of the kernel's holds when the kernel has
// forgotten the inode, and after a remount; then BACKING is walked for the number. An inode has
// O_PATH descriptors of its backing files, of which there may be several. Of inodes that nobody
// uses, as many descriptors stay open as there is room for; the others are opened again by name, if
// the name still leads to the inode. Names that an inode lost count for a while, since an open may
// be under way by one of them.
//
// The package knows no file content, form, class or key, and no FUSE request: what more there is to
// a file is its Owner's. It opens nothing but by O_PATH, and writes nothing.
package inode
