package fs

import (
	"fmt"
	"runtime"

	"vmcryptfs/byname"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// daemon is the identity of this process towards BACKING, as New found it: immutable.
//
// Every file made for a caller is made with the caller's identity (fsuid and fsgid, which Linux has
// for file servers). So the file belongs to the caller from the first moment, and BACKING itself
// applies setgid directories, default ACLs and bsdgroups. A file is never looked up by name again
// to be given away: by then other hands, in a BACKING directory of their own, could have put
// anybody's file under the name.
//
// The identity is one thread's. The kernel lets no other user trace or signal the thread meanwhile,
// for real, effective and saved user stay as they are. Go makes no thread from a locked one (Go has
// a template thread for that), and nothing forks on this one, so nobody inherits the identity.
// Securebits, which would keep the capabilities by themselves, would be inherited by children.
//
// A change of fsuid or fsgid sets the process's dumpable flag to fs.suid_dumpable, so become puts
// the flag back after each change. (keys.HardenProcess clears the flag: New comes after
// HardenProcess.) In the microsecond between, where the administrator has set fs.suid_dumpable, a
// crash would write a core file, yet an empty one: HardenProcess also set RLIMIT_CORE 0 and
// coredump_filter 0, and keys lie in memory with MADV_DONTDUMP. The change also takes the thread's
// parent-death signal, which nothing here uses.
type daemon struct {
	uid, gid uint32 // fsuid, fsgid
	caps     [2]unix.CapUserData
	dumpable int
	// mayBecome: this process may take any caller's identity. A process without the right makes
	// files for its own user alone, and can give such files a group.
	mayBecome bool
}

func newDaemon() (daemon, error) {
	uid, gid := fsIDs()
	d := daemon{uid: uid, gid: gid}
	if err := unix.Capget(capHeader(), &d.caps[0]); err != nil {
		return daemon{}, fmt.Errorf("read capabilities: %w", err)
	}
	d.caps[0].Effective &^= passesLimits // asCaller restores the capability for callers with it
	const needed = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	d.mayBecome = d.caps[0].Effective&needed == needed
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return daemon{}, fmt.Errorf("read the dumpable flag: %w", err)
	}
	if dumpable == 1 { // 2, for root alone, cannot be set by prctl: 0 is stricter
		d.dumpable = 1
	}
	return d, nil
}

func capHeader() *unix.CapUserHeader {
	return &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3} // of this thread
}

// fsIDs reads this thread's fsuid and fsgid: setfsuid(2) of an invalid id changes nothing, and
// returns the current one.
func fsIDs() (uid, gid uint32) {
	u, _ := unix.SetfsuidRetUid(-1)
	g, _ := unix.SetfsgidRetGid(-1)
	return uint32(u), uint32(g)
}

// as makes something in BACKING for owner by call, which is one system call. The call has the
// identity of owner, or of a process unable to change its identity. EPERM, with nothing made: the
// new file would not belong to owner.
func (d *daemon) as(owner fuse.Owner, call func() error) error {
	if owner == (fuse.Owner{Uid: d.uid, Gid: d.gid}) {
		return call()
	}
	if !d.mayBecome {
		if owner.Uid != d.uid {
			return unix.EPERM
		}
		return call()
	}
	// In a goroutine of its own: a thread whose identity cannot be restored ends with the
	// goroutine.
	made := make(chan error, 1)
	go func() { made <- d.callAs(owner, d.caps, call) }()
	return <-made
}

// callAs is call as owner, with capabilities. The calling goroutine must end after callAs.
func (d *daemon) callAs(owner fuse.Owner, caps [2]unix.CapUserData, call func() error) error {
	runtime.LockOSThread()
	err := d.become(owner.Uid, owner.Gid, caps)
	if err == nil {
		err = call()
	}
	if d.become(d.uid, d.gid, d.caps) == nil {
		runtime.UnlockOSThread()
	} // else no other goroutine ever runs on this thread
	return err
}

// become gives this thread an identity and capabilities. setfsuid from root takes the capabilities
// away that pass permissions; become restores those of the process. The kernel has judged the
// caller already (default_permissions), and BACKING must not judge by less, for FUSE leaves out a
// caller's supplementary groups. A local file system goes by the capabilities. An NFS server judges
// again, by uid and gid alone: there a caller who may write a directory only by a supplementary
// group makes nothing in the directory.
func (d *daemon) become(uid, gid uint32, caps [2]unix.CapUserData) error {
	// Neither call reports a failure, so the result is read back.
	_, _ = unix.SetfsgidRetGid(int(gid))
	_, _ = unix.SetfsuidRetUid(int(uid))
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(d.dumpable), 0, 0, 0); err != nil {
		return fmt.Errorf("put back the dumpable flag: %w", err)
	}
	if u, g := fsIDs(); u != uid || g != gid {
		return fmt.Errorf("take the identity %d:%d: %w", uid, gid, unix.EPERM)
	}
	if err := unix.Capset(capHeader(), &caps[0]); err != nil {
		return fmt.Errorf("keep capabilities as %d:%d: %w", uid, gid, err)
	}
	return nil
}

// give adds the caller's group to a file made by as, where the process could not become the caller.
// fd leads to the file. fd may have been found by name, so give checks that fd is a file as c made.
// A group inherited from the directory stays, and so do suid and sgid, which chown clears.
func (d *daemon) give(c creation, fd int) error {
	if d.mayBecome || c.owner.Gid == d.gid {
		return nil
	}
	var st, dir unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Uid != d.uid || st.Mode&unix.S_IFMT != c.mode&unix.S_IFMT {
		return fmt.Errorf("%q was given to another file meanwhile: %w", c.name, unix.EIO)
	}
	if err := unix.Fstat(c.dir.FD(), &dir); err != nil {
		return err
	}
	if dir.Mode&unix.S_ISGID != 0 || st.Gid != d.gid {
		return nil
	}
	if err := unix.Fchownat(fd, "", -1, int(c.owner.Gid), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if c.mode&unix.S_IFMT == unix.S_IFDIR || st.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return nil
	}
	return unix.Chmod(byname.ProcPath(fd), st.Mode&0o7777)
}
