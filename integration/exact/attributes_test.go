package exact

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

// TestAttributes compares extended attributes and ACLs.
func TestAttributes(t *testing.T) {
	t.Parallel()
	newOracle(t).compare(t, []check{
		{"by name", (*witness).attributesByName},
		{"by user", (*witness).attributesByUser},
		{"sizes", (*witness).attributeSizes},
		{"rights by ACL", (*witness).aclRights},
		{"ACL and mode", (*witness).aclModes},
		{"default ACL", (*witness).aclDefaults},
		{"wrong ACLs", (*witness).aclWrong},
	})
}

// things makes one of each kind with attributes.
func (w *witness) things() []string {
	w.create(w.file("file"), "content", 0o644)
	w.must(os.Mkdir(w.path("dir"), 0o755))
	w.must(unix.Symlink("nowhere", w.path("link")))
	w.must(unix.Mkfifo(w.path("fifo"), 0o644))
	return []string{w.file("file"), w.path("dir"), w.path("link"), w.path("fifo")}
}

// attributesByName sets, changes, lists and removes attributes of each name space.
func (w *witness) attributesByName() {
	for _, path := range w.things() {
		for _, name := range []string{
			"user.a", "user.", "user", "user." + strings.Repeat("n", 250), "user." + strings.Repeat("n", 251), "user.\xff\xfe",
			"trusted.b", "trusted.overlay.opaque", "security.c", "security.selinux", "security.capability", "system.d", "other.e", "",
		} {
			for _, flags := range []int{unix.XATTR_REPLACE, unix.XATTR_CREATE, unix.XATTR_CREATE, unix.XATTR_REPLACE, 0, 3, 8} {
				value := []byte(fmt.Sprintf("value %d", flags))
				w.tried(fmt.Sprintf("set %.12q, flags %d", name, flags), unix.Lsetxattr(path, name, value, flags))
			}
			w.attribute(path, name)
			w.attributes(path)
			w.tried("remove", unix.Lremovexattr(path, name))
			w.tried("remove again", unix.Lremovexattr(path, name))
		}
		w.attributes(path)
	}
}

// attribute writes down a value, asked for with several sizes of buffer.
func (w *witness) attribute(path, name string) {
	for _, room := range []int{0, 3, 100} {
		b := make([]byte, room)
		n, err := unix.Lgetxattr(path, name, b)
		w.saw("value of %.12q, room %d: %d %q %s", name, room, n, b[:max(0, min(n, room))], errnoName(err))
	}
}

// attributes writes down all names.
func (w *witness) attributes(path string) {
	for _, room := range []int{0, 3, 4096} {
		b := make([]byte, room)
		n, err := unix.Llistxattr(path, b)
		names := strings.Split(string(b[:max(0, min(n, room))]), "\x00")
		slices.Sort(names)
		w.saw("names, room %d: %d %q %s", room, n, names, errnoName(err))
	}
}

// attributesByUser sets and reads attributes as each user, of things of several modes.
func (w *witness) attributesByUser() {
	paths := w.things()
	for _, path := range paths {
		for _, mode := range []uint32{0o600, 0o666, 0o444, 0o1777} {
			w.must(unix.Lchown(path, int(owner.uid), int(owner.gid)))
			if path != w.path("link") {
				w.must(unix.Chmod(path, mode))
			}
			for _, name := range []string{"user.a", "trusted.b", "security.c"} {
				for _, u := range users {
					_ = unix.Lsetxattr(path, name, []byte("from before"), 0)
					w.as(u, func() {
						w.tried(fmt.Sprintf("%s sets %s, mode %o", u.name, name, mode), unix.Lsetxattr(path, name, []byte("1"), 0))
						w.attribute(path, name)
						w.attributes(path)
						w.tried("removes", unix.Lremovexattr(path, name))
					})
				}
			}
		}
	}
}

// attributeSizes fills the disk's room for attributes.
func (w *witness) attributeSizes() {
	path := w.file("file")
	w.create(path, "", 0o644)
	for _, size := range []int{0, 1, 100, 1000, 3000, 4000, 4096, 65536, 65537} {
		value := bytes.Repeat([]byte{7}, size)
		w.tried(fmt.Sprintf("set %d bytes", size), unix.Setxattr(path, "user.big", value, 0))
		got := make([]byte, 65536)
		n, err := unix.Getxattr(path, "user.big", got)
		w.saw("get: %d, as set %v, %s", n, n == size && bytes.Equal(got[:n], value), errnoName(err))
	}
	for i := range 40 {
		w.tried(fmt.Sprintf("attribute %d", i), unix.Setxattr(path, fmt.Sprintf("user.many%d", i), bytes.Repeat([]byte{1}, 100), 0))
	}
	w.attributes(path)
}

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// aclEntry is an ACL entry: tag, permissions and id.
type aclEntry struct {
	tag, perm uint16
	id        uint32
}

const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
	nobodys     = 1<<32 - 1 // id of an entry without one
)

// acl encodes entries for the kernel.
func acl(entries ...aclEntry) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// rich gives a user and a group more rights than the others, as far as mask allows.
func rich(perm, mask uint16) []byte {
	return acl(aclEntry{aclUserObj, 6, nobodys}, aclEntry{aclUser, perm, member.uid}, aclEntry{aclGroupObj, 4, nobodys},
		aclEntry{aclGroup, perm, stranger.gid}, aclEntry{aclMask, mask, nobodys}, aclEntry{aclOther, 0, nobodys})
}

// aclRights opens files whose ACLs give several rights, as each user.
func (w *witness) aclRights() {
	path := w.file("file")
	w.create(path, "content", 0o640)
	w.must(unix.Chown(path, int(owner.uid), int(owner.gid)))
	for _, perm := range []uint16{0, 2, 4, 6, 7} {
		for _, mask := range []uint16{0, 4, 6, 7} {
			w.tried("set", unix.Setxattr(path, aclAccess, rich(perm, mask), 0))
			w.look("mode", path)
			for _, u := range users {
				w.as(u, func() {
					for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR} {
						w.tried(fmt.Sprintf("%s opens %d, perm %d mask %d", u.name, flags, perm, mask), mounttest.OpenErr(path, flags))
					}
					w.tried("execute", unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS))
					w.tried("set an ACL", unix.Setxattr(path, aclAccess, rich(perm, mask), 0))
				})
			}
		}
	}
}

// aclModes changes modes under an ACL and ACLs under a mode.
func (w *witness) aclModes() {
	for _, path := range w.things() {
		for _, u := range []user{root, owner} {
			w.must(unix.Lchown(path, int(owner.uid), team))
			w.as(u, func() {
				for _, mode := range []uint32{0o2775, 0o4711, 0o600, 0o077} {
					w.tried("chmod", unix.Chmod(path, mode))
					w.tried("set an ACL", unix.Setxattr(path, aclAccess, rich(7, 5), 0))
					w.look(path[len(w.dir):], path)
					w.tried("chmod again", unix.Chmod(path, mode^0o070))
					w.attribute(path, aclAccess)
					small := acl(aclEntry{aclUserObj, 6, nobodys}, aclEntry{aclGroupObj, 5, nobodys}, aclEntry{aclOther, 1, nobodys})
					w.tried("an ACL that is a mode", unix.Setxattr(path, aclAccess, small, 0))
					w.look("mode", path)
					w.attributes(path)
					w.tried("remove it", unix.Removexattr(path, aclAccess))
				}
			})
		}
	}
}

// aclDefaults makes things in a directory with a default ACL.
func (w *witness) aclDefaults() {
	for _, defaults := range [][]byte{
		rich(7, 7), rich(6, 4),
		acl(aclEntry{aclUserObj, 7, nobodys}, aclEntry{aclGroupObj, 7, nobodys}, aclEntry{aclOther, 7, nobodys}),
		acl(aclEntry{aclUserObj, 0, nobodys}, aclEntry{aclGroupObj, 0, nobodys}, aclEntry{aclOther, 0, nobodys}),
	} {
		for _, u := range users {
			for _, umask := range []int{0, 0o077} {
				dir := w.path("dir")
				w.must(os.Mkdir(dir, 0o755))
				w.must(unix.Chmod(dir, 0o2777))
				w.tried("set the default", unix.Setxattr(dir, aclDefault, defaults, 0))
				w.as(u, func() {
					unix.Umask(umask)
					for _, mode := range []uint32{0o7777, 0o640} {
						w.makeEach(fmt.Sprintf("%s, umask %o", u.name, umask), dir, mode)
					}
				})
				w.must(unix.Mkdir(dir+"/sub", 0o777))
				w.must(os.WriteFile(dir+"/file"+w.ext, nil, 0o666))
				for _, path := range []string{dir + "/sub", dir + "/file" + w.ext} {
					w.look("inherits", path)
					w.attribute(path, aclAccess)
					w.attribute(path, aclDefault)
				}
				w.must(os.RemoveAll(dir))
			}
		}
	}
}

// aclWrong sets malformed ACLs, and ACLs of the wrong kind.
func (w *witness) aclWrong() {
	for _, path := range w.things() {
		for _, name := range []string{aclAccess, aclDefault} {
			for what, value := range [][]byte{
				rich(7, 7), rich(7, 7)[:10], acl(), {}, {1, 0, 0, 0}, []byte("no ACL at all"),
				acl(aclEntry{aclUserObj, 7, nobodys}), acl(aclEntry{aclUserObj, 8, nobodys}, aclEntry{aclGroupObj, 0, nobodys}, aclEntry{aclOther, 0, nobodys}),
				acl(aclEntry{aclUserObj, 7, nobodys}, aclEntry{aclUser, 7, 5}, aclEntry{aclGroupObj, 0, nobodys}, aclEntry{aclOther, 0, nobodys}),
			} {
				w.tried(fmt.Sprintf("set %s to number %d", name, what), unix.Setxattr(path, name, value, 0))
				w.look("mode", path)
				w.attribute(path, name)
			}
			w.tried("remove", unix.Removexattr(path, name))
			w.tried("remove again", unix.Removexattr(path, name))
		}
	}
}
