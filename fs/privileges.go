package fs

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"vmcryptfs/byname"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// killPrivileges clears suid and sgid when a caller without privilege changes a file, as the kernel
// does for its own file systems. (With CAP_HANDLE_KILLPRIV_V2 the kernel leaves the clearing to
// us.)
func (f *FS) killPrivileges(n *node, by *fuse.InHeader) error {
	if !n.IsRegular() || n.mode.Load()&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return nil // as of nearly all files: no system call for a write
	}
	changed := false
	err := n.At(func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		mode := withoutPrivileges(&st, by)
		if mode != st.Mode {
			if err := unix.Chmod(byname.ProcPath(fd), mode&0o7777); err != nil {
				return err
			}
			changed = true
		}
		n.mode.Store(mode)
		return nil
	})
	if changed {
		f.dropAttributes(n)
	}
	return err
}

// withoutPrivileges is the mode that is left of st's. Where the group cannot execute the file, sgid
// is no privilege, and stays when a member of the group changes the file.
func withoutPrivileges(st *unix.Stat_t, by *fuse.InHeader) uint32 {
	mode := st.Mode &^ unix.S_ISUID
	if mode&unix.S_ISGID != 0 && (mode&unix.S_IXGRP != 0 || !inGroup(by, st.Gid)) {
		mode &^= unix.S_ISGID
	}
	return mode
}

// inGroup reports whether a caller is in a group, as far as /proc shows: FUSE leaves out
// supplementary groups.
func inGroup(by *fuse.InHeader, gid uint32) bool {
	if by.Gid == gid {
		return true
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", by.Pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if groups, ok := strings.CutPrefix(line, "Groups:"); ok {
			return slices.Contains(strings.Fields(groups), strconv.FormatUint(uint64(gid), 10))
		}
	}
	return false
}
