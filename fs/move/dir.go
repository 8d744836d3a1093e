package move

import "vmcryptfs/fs/cryptfile"

// Dir is the directory of the file F that moves, with the names of F and of the companion. Each
// method is one step, durable after Sync, and acts only if the names lead to the files that the
// move knows: other hands may have exchanged them. The caller of this package has the locks of
// names.
type Dir interface {
	// Create makes an empty file, mode 0600, for D: without a name, or under a temporary one.
	Create() (cryptfile.Backing, error)
	// Discard removes the temporary name of what Create made, if there is one.
	Discard() error
	// CreateCompanion makes an empty file, mode 0600, with the companion's name.
	CreateCompanion() (cryptfile.Backing, error)

	// CanExchange reports whether BACKING exchanges names (RENAME_EXCHANGE).
	CanExchange() bool
	// LinkMade gives what Create made the companion's name.
	LinkMade() error
	// Exchange exchanges the names of F and of the companion.
	Exchange() error
	// LinkF gives F the companion's name, too.
	LinkF() error
	// ReplaceF renames the temporary name of what Create made over F.
	ReplaceF() error

	// RemoveCompanion removes the companion's name. Where nothing has the name, nothing is done.
	RemoveCompanion() error
	// RestoreCompanion renames the companion over F.
	RestoreCompanion() error
	// Sync is fsync of the directory.
	Sync() error
}
