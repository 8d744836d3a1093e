package fs

import (
	"path"

	"golang.org/x/sys/unix"

	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// Wanted is what the rules want of a file by its path alone.
type Wanted struct {
	Verdict layout.Verdict
	KEK     keys.Ref // of the file, if it is encrypted
}

// Wanted is what the rules want of the file at a path below BACKING, whose directory is open as dir. The
// rules are the settings' once these are proven, and the built-in ones before. No lock is held.
func (f *FS) Wanted(dir int, at string) Wanted {
	w := Wanted{Verdict: f.verdictAt(dir, at), KEK: f.store.KEK()}
	if p := f.rules(); p.Any() {
		w.KEK = f.kekOf(p.Over(path.Dir(at)))
	}
	return w
}

// WantedAt is Wanted of a path alone. The directory is opened with no symbolic link followed.
func (f *FS) WantedAt(at string) (Wanted, error) {
	dir, err := f.openBelow(path.Dir(at))
	if err != nil {
		return Wanted{}, err
	}
	defer unix.Close(dir)
	return f.Wanted(dir, at), nil
}
