package fs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vmcryptfs/byname"
	"vmcryptfs/fs/ability"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/fs/inode"
	"vmcryptfs/fs/move"
	"vmcryptfs/layout"
)

// moveDir is the directory of a file that moves: a move.Dir. FS.names is held exclusively, and Mu of
// the file's node. Other hands may put other files under the names at any moment: each step looks
// first, and after a rename again.
type moveDir struct {
	f         *FS
	at        inode.Place // F; the directory is pinned
	companion string
	known     map[string]backing.Key // the inodes that the names lead to
	sync      int                    // descriptor to sync the directory by; -1: closed

	temp string // temporary name of made; "": none
	made madeFile
}

// madeFile is a new backing file of a move.
type madeFile struct {
	file *cryptfile.OSFile
	path int // O_PATH descriptor, the node's later; -1: none
	key  backing.Key
}

var _ move.Dir = (*moveDir)(nil)

// newMoveDir prepares the directory of F, at at, whose inode is key, for the move id.
func (f *FS) newMoveDir(at inode.Place, key backing.Key, id layout.FileID) (*moveDir, error) {
	if err := at.Dir.Pin(); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(at.Dir.FD(), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		at.Dir.Unpin()
		return nil, err
	}
	d := &moveDir{f: f, at: at, companion: layout.MoveName(id), sync: fd, made: madeFile{path: -1}}
	d.known = map[string]backing.Key{at.Name: key}
	return d, nil
}

// stepsOf is d, or what FS.refuser makes of it.
func (f *FS) stepsOf(d *moveDir) move.Dir {
	if f.refuser == nil {
		return d
	}
	return f.refuser(d)
}

// close closes the directory, and the path of a made file that no node has taken.
func (d *moveDir) close() error {
	d.at.Dir.Unpin()
	err := unix.Close(d.sync)
	d.sync = -1
	if d.made.path >= 0 {
		err = errors.Join(err, unix.Close(d.made.path))
	}
	return err
}

func (d *moveDir) fd() int { return d.at.Dir.FD() }

// CanExchange reports whether BACKING exchanges names.
func (d *moveDir) CanExchange() bool { return !d.f.Abilities().Lacks(ability.Exchange) }

// Create makes D: without a name, if a link can give it one later.
func (d *moveDir) Create() (cryptfile.Backing, error) {
	fd, err := -1, error(unix.EOPNOTSUPP)
	if d.CanExchange() && !d.f.Abilities().Lacks(ability.Nameless) {
		fd, err = unix.Openat(d.fd(), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	}
	if noTmpfile(err) {
		d.temp = d.f.temps.name()
		fd, err = d.create(d.temp)
	}
	if err != nil {
		return nil, err
	}
	return d.take(fd, d.temp)
}

// CreateCompanion makes D with the companion's name.
func (d *moveDir) CreateCompanion() (cryptfile.Backing, error) {
	fd, err := d.create(d.companion)
	if err != nil {
		return nil, err
	}
	return d.take(fd, d.companion)
}

func (d *moveDir) create(name string) (int, error) {
	return unix.Openat(d.fd(), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
}

// take notes a file just made, with the name, and gets what a node needs of it.
func (d *moveDir) take(fd int, name string) (cryptfile.Backing, error) {
	d.made.file = cryptfile.NewOSFile(fd)
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil {
		d.made.key = backing.KeyOf(&st)
		d.known[name] = d.made.key
		d.made.path, err = unix.Open(byname.ProcPath(fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, errors.Join(err, d.made.file.Close(), d.remove(name))
	}
	return d.made.file, nil
}

// describeCompanion makes the companion, open as file, the made file. EIO: another file has the
// companion's name.
func (d *moveDir) describeCompanion(file *cryptfile.OSFile, key backing.Key) (err error) {
	if d.known[d.companion] != key {
		return fmt.Errorf("%q was given to another file meanwhile: %w", d.companion, unix.EIO)
	}
	d.made.key = key
	d.made.path, err = unix.Open(byname.ProcPath(file.Fd()), unix.O_PATH|unix.O_CLOEXEC, 0)
	return err
}

// noteCompanion notes what the companion's name leads to, if anything.
func (d *moveDir) noteCompanion() error {
	var st unix.Stat_t
	err := unix.Fstatat(d.fd(), d.companion, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	d.known[d.companion] = backing.KeyOf(&st)
	return err
}

// adoptCompanion opens the companion as the made file.
func (d *moveDir) adoptCompanion() error {
	file, err := openBeside(d.fd(), d.companion, false)
	if err != nil {
		return err
	}
	_, err = d.take(file.Fd(), d.companion)
	return err
}

// Discard removes the temporary name of D.
func (d *moveDir) Discard() error { return d.remove(d.temp) }

// remove removes a name that leads to the inode known; none is removed already.
func (d *moveDir) remove(name string) error {
	if name == "" {
		return nil
	}
	err := removeIf(d.fd(), name, d.known[name], 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// LinkMade gives D the companion's name.
func (d *moveDir) LinkMade() error {
	err := unix.Linkat(unix.AT_FDCWD, byname.ProcPath(d.made.file.Fd()), d.fd(), d.companion, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return err
	}
	d.known[d.companion] = d.made.key
	return d.Discard()
}

// LinkF gives F the companion's name, too.
func (d *moveDir) LinkF() error {
	if err := d.leads(d.at.Name); err != nil {
		return err
	}
	if err := unix.Linkat(d.fd(), d.at.Name, d.fd(), d.companion, 0); err != nil {
		return err
	}
	d.known[d.companion] = d.known[d.at.Name]
	return d.leads(d.companion)
}

// Exchange exchanges the names of F and of the companion.
func (d *moveDir) Exchange() error {
	f, companion := d.at.Name, d.companion
	if err := errors.Join(d.leads(f), d.leads(companion)); err != nil {
		return err
	}
	if err := unix.Renameat2(d.fd(), f, d.fd(), companion, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	d.known[f], d.known[companion] = d.known[companion], d.known[f]
	return errors.Join(d.leads(f), d.leads(companion))
}

// ReplaceF renames D's temporary name over F.
func (d *moveDir) ReplaceF() error { return d.replaceF(d.temp) }

// RestoreCompanion renames the companion over F.
func (d *moveDir) RestoreCompanion() error { return d.replaceF(d.companion) }

func (d *moveDir) replaceF(name string) error {
	if err := errors.Join(d.leads(d.at.Name), d.leads(name)); err != nil {
		return err
	}
	if err := unix.Renameat(d.fd(), name, d.fd(), d.at.Name); err != nil {
		return err
	}
	d.known[d.at.Name] = d.known[name]
	return d.leads(d.at.Name)
}

// RemoveCompanion removes the companion's name.
func (d *moveDir) RemoveCompanion() error { return d.remove(d.companion) }

// leads is nil if the name leads to the inode known.
func (d *moveDir) leads(name string) error { return leadsTo(d.fd(), name, d.known[name]) }

// Sync is fsync of the directory. A Pair whose begin BACKING refused to sync calls Sync after close, too.
func (d *moveDir) Sync() error {
	if d.sync >= 0 {
		return unix.Fsync(d.sync)
	}
	if err := d.at.Dir.Pin(); err != nil {
		return err
	}
	defer d.at.Dir.Unpin()
	return syncDir(d.at.Dir)
}
