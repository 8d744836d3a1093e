package ability

import "slices"

// Ability is one thing that a file system can do. The word appears in status and in JSON.
type Ability string

const (
	Exclusive  Ability = "exclusive"     // O_EXCL refuses a taken name
	Replace    Ability = "replace"       // rename(2) puts a file in the place of another
	Sync       Ability = "sync"          // fsync(2) of files and directories
	Extend     Ability = "extend"        // a file made longer reads as zeros there
	Numbers    Ability = "inode-numbers" // a file has one number: by descriptor, by name, and once renamed
	Renamed    Ability = "renamed"       // descriptors lead to a renamed file
	Locks      Ability = "locks"         // flock(2) and ranges, between two descriptors
	Link       Ability = "link"          // link(2) of an open file
	LinkNumber Ability = "link-number"   // a file has one inode number under both its names
	FirstName  Ability = "first-name"    // descriptors lead to a file whose name they came by is gone
	Unlinked   Ability = "unlinked"      // an open file lives on without a name
	Nameless   Ability = "tmpfile"       // O_TMPFILE, and a name for such a file
	NoReplace  Ability = "noreplace"     // RENAME_NOREPLACE
	Exchange   Ability = "exchange"      // RENAME_EXCHANGE
	Punch      Ability = "punch"         // FALLOC_FL_PUNCH_HOLE
	Holes      Ability = "holes"         // SEEK_HOLE finds a hole
	Direct     Ability = "direct"        // O_DIRECT
	Handles    Ability = "handles"       // name_to_handle_at(2)
	Births     Ability = "births"        // birth times
	Xattrs     Ability = "xattrs"        // extended attributes of users
	Cases      Ability = "cases"         // names that differ in case are two
)

// All are the abilities, in the order of reports.
func All() []Ability {
	return []Ability{Exclusive, Replace, Sync, Extend, Numbers, Renamed, Locks,
		Link, LinkNumber, FirstName, Unlinked, Nameless, NoReplace, Exchange,
		Punch, Holes, Direct, Handles, Births, Xattrs, Cases}
}

// required are the abilities that every datastore needs.
func required() []Ability {
	return []Ability{Exclusive, Replace, Sync, Extend, Numbers, Renamed, Locks}
}

// Required reports whether every datastore needs a.
func (a Ability) Required() bool { return slices.Contains(required(), a) }

// Without is the consequence of a's absence, as a part of a sentence.
func (a Ability) Without() string {
	switch a {
	case Exclusive:
		return "a new file could take the place of another"
	case Replace:
		return "a file that changes its form would be lost in a crash"
	case Sync:
		return "what a guest has synced could be lost"
	case Extend:
		return "disks could not grow"
	case Numbers:
		return "one file could not be told from another"
	case Renamed:
		return "a renamed disk would be lost to who has it open"
	case Locks:
		return "two programs could write one file's header at once"
	case Link, LinkNumber:
		return "no hard links (EPERM)"
	case FirstName:
		return "new files are renamed into place, and descriptors are got by name again"
	case Unlinked:
		return "a file that is removed is lost to who has it open"
	case Nameless:
		return "new files have a hidden name first"
	case NoReplace:
		return "rename -n and the like give EINVAL"
	case Exchange:
		return "two names cannot be exchanged (EINVAL)"
	case Punch:
		return "discarded blocks are written as zeros"
	case Holes:
		return "copies and backups read every hole"
	case Direct:
		return "BACKING's page cache keeps what is read and written"
	case Handles:
		return "no NFS export"
	case Births:
		return "a file handle may lead to a later file of the same number"
	case Xattrs:
		return "no attributes and ACLs"
	case Cases:
		return "names are judged as they are spelled"
	}
	return ""
}
