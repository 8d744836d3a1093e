package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	vmfs "vmcryptfs/fs"
	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/mounts"
	"vmcryptfs/fs/policy"
	"vmcryptfs/keys"
	"vmcryptfs/words"
)

// Limits below which a health check fails (docs/operations.md).
const (
	// leastShare is how much of BACKING's blocks and inodes must be left, in percent.
	leastShare = 5
	// leastDays is how many days of each certificate must be left. Warnings begin earlier (soon),
	// since a health check is for states in need of somebody now.
	leastDays = 14
	// enoughSpace in bytes is enough, whatever the share.
	enoughSpace = 100 << 30
)

// Health judges the mount by the status, by the free space of BACKING and by a call through the
// mount. Neither key servers nor files are asked. Each of the two calls may take DeadTime.
func (d *daemon) Health(ctx context.Context) admin.Health {
	var mount, space admin.Check
	var asking sync.WaitGroup
	asking.Go(func() { mount = d.checkMount() })
	asking.Go(func() { space = d.checkSpace() })
	s := d.glance(ctx, 0)
	asking.Wait()
	if s.Gone {
		mount.OK, mount.Message = false, goneWarning(s)
	}
	return admin.NewHealth(s.Mount, mount, d.checkKeys(s), checkServers(s, time.Now()), checkCertificates(s), checkFiles(s), space)
}

// checkMount asks the mount as any program would.
func (d *daemon) checkMount() admin.Check {
	c := admin.Check{Name: admin.CheckMount, OK: true, Message: "answers"}
	_, err := d.probes.mount.ask(DeadTime, func() (st unix.Statfs_t, err error) {
		err = unix.Statfs(d.config.Mountpoint, &st)
		if err == nil && st.Type != unix.FUSE_SUPER_MAGIC {
			err = mounts.ErrNotMounted
		}
		return st, err
	})
	if err != nil {
		c.OK, c.Message = false, err.Error()
	}
	return c
}

// checkSpace asks BACKING for free space.
func (d *daemon) checkSpace() admin.Check {
	c := admin.Check{Name: admin.CheckSpace}
	st, err := d.probes.space.ask(DeadTime, d.probes.askSpace)
	if err != nil {
		c.Message = fmt.Sprintf("BACKING %s: %v", d.config.Backing, err)
		return c
	}
	c.OK, c.Message = judgeSpace(&st)
	return c
}

// probes are the calls of a health check that may hang.
type probes struct {
	mount, space probe[unix.Statfs_t]
	places       probe[[]policy.Lack] // for the status, not for health
	// backing is BACKING. A call that hangs keeps the os.File open beyond Close.
	backing *os.File
}

// open duplicates the descriptor backing, of BACKING, for the probes.
func (p *probes) open(backing int) error {
	fd, err := unix.FcntlInt(uintptr(backing), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	p.backing = os.NewFile(uintptr(fd), "BACKING")
	return nil
}

func (p *probes) askSpace() (st unix.Statfs_t, err error) {
	raw, err := p.backing.SyscallConn()
	if err != nil {
		return st, err
	}
	controlErr := raw.Control(func(fd uintptr) { err = unix.Fstatfs(int(fd), &st) })
	return st, errors.Join(controlErr, err)
}

// judgeSpace reports whether enough is left for users other than root.
func judgeSpace(st *unix.Statfs_t) (ok bool, message string) {
	ok = true
	free := st.Bavail * uint64(cmp.Or(st.Frsize, st.Bsize))
	message = fmt.Sprintf("%s of BACKING free", words.Size(int64(free)))
	if st.Blocks > 0 {
		message += fmt.Sprintf(" (%d %%)", share(st.Bavail, st.Blocks))
		ok = share(st.Bavail, st.Blocks) >= leastShare || free >= enoughSpace
	}
	if st.Files > 0 { // btrfs and others count none
		message += fmt.Sprintf(", %d %% of its inodes", share(st.Ffree, st.Files))
		ok = ok && share(st.Ffree, st.Files) >= leastShare
	}
	return ok, message
}

// share is part of of in whole percent.
func share(part, of uint64) uint64 { return uint64(float64(part) / float64(of) * 100) }

// checkKeys judges if files open, and new ones can be made.
func (d *daemon) checkKeys(s admin.Status) admin.Check {
	d.mu.Lock()
	seal := d.seal
	d.mu.Unlock()
	return judgeKeys(s, seal)
}

func judgeKeys(s admin.Status, seal error) admin.Check {
	c := admin.Check{Name: admin.CheckKeys}
	i := slices.IndexFunc(s.Keys, func(k admin.Key) bool { return k.KeyName == s.KEK })
	lost := slices.IndexFunc(s.Keys, func(k admin.Key) bool { return k.State == keys.Missing.String() })
	switch {
	case s.Locked:
		c.Message = "locked: vmcryptfs unlock " + s.Mountpoint
	case !s.Verified && seal != nil:
		c.Message = fmt.Sprintf("settings not verified: %v", seal)
	case !s.Verified:
		c.Message = "settings not verified yet"
	case lost >= 0:
		c.Message = fmt.Sprintf("provider %s has key %s no more", s.Keys[lost].Provider, s.Keys[lost].Identifier)
	case i >= 0:
		state := s.Keys[i].State
		c.OK = state == keys.Active.String() || state == keys.StateUnknown.String()
		c.Message = fmt.Sprintf("key %s held, %s; settings verified", s.KEK.Identifier, state)
	default:
		c.OK = slices.ContainsFunc(s.Providers, func(p admin.Provider) bool {
			return p.Name == s.KEK.Provider && slices.ContainsFunc(p.Servers, func(h keys.ServerHealth) bool { return h.OK })
		})
		c.Message = fmt.Sprintf("key %s is not held, and provider %s answers: %t; settings verified", s.KEK.Identifier, s.KEK.Provider, c.OK)
	}
	return c
}

// checkServers judges the key servers. A server not asked yet does not fail the check.
func checkServers(s admin.Status, now time.Time) admin.Check {
	c := admin.Check{Name: admin.CheckServers, OK: true}
	var list []string
	for _, p := range s.Providers {
		for _, h := range p.Servers {
			list = append(list, fmt.Sprintf("%s of %s %s", h.Address, p.Name, admin.ServerText(h, now)))
			if h.State == keys.ServerDown || h.State == keys.ServerUnknown && !h.Checked.IsZero() {
				c.OK = false
			}
			for _, k := range h.KeyErrors {
				list = append(list, h.Address+" "+admin.KeyErrorText(k, now))
			}
		}
	}
	c.Message = strings.Join(list, "; ")
	if len(list) == 0 {
		c.OK, c.Message = false, "no key server is configured"
	}
	return c
}

// checkCertificates judges the certificates on which sessions with key servers depend.
func checkCertificates(s admin.Status) admin.Check {
	c := admin.Check{Name: admin.CheckCertificates, OK: true}
	var first *admin.Certificate
	var ending []admin.Certificate
	for _, p := range s.Providers {
		for i := range p.Certificates {
			of := &p.Certificates[i]
			if first == nil || of.Days < first.Days {
				first = of
			}
			if of.Days < leastDays {
				ending = append(ending, *of)
			}
		}
	}
	switch {
	case len(ending) > 0:
		c.OK, c.Message = false, strings.Join(CertificateWarnings(ending), "; ")
	case first == nil:
		c.Message = "none known yet"
	default:
		c.Message = fmt.Sprintf("the first to end has %d days left, the %s (%s)", first.Days, first.Role, first.Subject)
	}
	return c
}

// checkFiles judges the counts of the census. Two findings beside damage fail the check: cleartext
// under the deny policy, and a walk that ended early, since unseen files may be damaged.
func checkFiles(s admin.Status) admin.Check {
	c := admin.Check{Name: admin.CheckFiles}
	f := s.Files
	denied := s.Unencrypted == Unencrypted(vmfs.Deny).String() && f.Unencrypted > 0
	early := !f.Complete && !f.CountedAt.IsZero()
	c.OK = f.Damaged == 0 && !denied && !early
	c.Message = fmt.Sprintf("%d damaged, %d unencrypted%s", f.Damaged, f.Unencrypted, f.CountedText(time.Now()))
	return c
}
