package scan

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// fsType is a type of file system.
type fsType struct {
	magic uint32 // of statfs(2)
	name  string
	keeps string // what the type does with blocks that were written over or freed; empty: nothing of its own
}

// fsTypes are the types that datastores lie on, by linux/magic.h. ext2, ext3 and ext4 share one.
var fsTypes = [...]fsType{
	{unix.EXT4_SUPER_MAGIC, "ext4", "its journal may keep data, where it is mounted with data=journal"},
	{unix.XFS_SUPER_MAGIC, "xfs", "where it was made with reflink, files share blocks (cp does that by itself): a block is free when the last file that shares it has gone"},
	{unix.BTRFS_SUPER_MAGIC, "btrfs", "it writes changed data elsewhere, and snapshots, subvolumes and reflinked copies keep the old blocks: delete those too"},
	{0x2fc12fc1, "zfs", "it writes changed data elsewhere, and snapshots and clones keep the old blocks: destroy those too"},
	{0xca451a4e, "bcachefs", "it writes changed data elsewhere, and snapshots and reflinked copies keep the old blocks: delete those too"},
	{unix.F2FS_SUPER_MAGIC, "f2fs", "it writes changed data elsewhere, and the old blocks stay until it cleans their segment"},
	{unix.NILFS_SUPER_MAGIC, "nilfs2", "it writes changed data elsewhere, and its checkpoints keep the old blocks"},
	{unix.OVERLAYFS_SUPER_MAGIC, "overlayfs", "a file that was changed or removed lies on in the lower layer"},
	{unix.NFS_SUPER_MAGIC, "nfs", "what the server's file system and its snapshots keep is to be asked there"},
	{unix.SMB2_SUPER_MAGIC, "smb", "what the server's file system and its snapshots keep is to be asked there"},
	{unix.CIFS_SUPER_MAGIC, "cifs", "what the server's file system and its snapshots keep is to be asked there"},
	{unix.CEPH_SUPER_MAGIC, "ceph", "its snapshots keep the old objects"},
	{unix.FUSE_SUPER_MAGIC, "fuse", "what lies below it is to be asked there"},
	{unix.TMPFS_MAGIC, "tmpfs", "it lies in memory, and in swap: encrypt the swap"},
	{0x01161970, "gfs2", ""},
	{0x7461636f, "ocfs2", "reflinked files share blocks: a block is free when the last file that shares it has gone"},
}

// fileSystem is the type of the file system that fd lies on: its name or, where that is not known, its
// number.
func fileSystem(fd int) string {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return "unknown"
	}
	for i := range fsTypes {
		if fsTypes[i].magic == uint32(st.Type) {
			return fsTypes[i].name
		}
	}
	return fmt.Sprintf("%#x", uint32(st.Type))
}

// Remains says in paragraphs what an earlier copy in clear leaves behind on a file system of the type,
// as Report has it.
func Remains(fileSystem string) []string {
	own := fmt.Sprintf("BACKING lies on %s", fileSystem)
	for i := range fsTypes {
		if fsTypes[i].name == fileSystem && fsTypes[i].keeps != "" {
			own += ": " + fsTypes[i].keeps
		}
	}
	return []string{
		"Whatever lay here in clear may still be there. To delete a file, or to encrypt it, does not erase the blocks that held its cleartext.",
		own + ".",
		"Snapshots and backups, of the file system or of the volume below it, keep every earlier copy until they are deleted.",
		"An SSD writes elsewhere, and keeps what was there before out of the host's reach. Only what the drive offers as a whole (sanitize, cryptographic erase) takes it away, or a drive that was encrypted from the start.",
		"A secret that was once there in clear is best changed.",
	}
}
