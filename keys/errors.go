package keys

import "errors"

// ErrNoKey is what every reason for which a key is not to be had now satisfies:
// ENOKEY through the mount, exit code 3 in commands.
var ErrNoKey = errors.New("key not available")

// Why a key is not to be had, in vSphere's words where it has them; ask with
// errors.Is. Each of them is an ErrNoKey too.
var (
	ErrLocked      error = &reason{"missing in cache: the datastore is locked"}
	ErrNotFound    error = &reason{"missing in KMS"}
	ErrUnreachable error = &reason{"cluster unreachable"} // no server of the provider answers
	ErrRefused     error = &reason{"the KMS refuses it"}
	ErrKeyState    error = &reason{"not active or enabled"}
	ErrWrongKey    error = &reason{"the KMS answers with another key under that identifier (was it restored empty?)"}
	// ErrServersDiffer is said of a key that nobody here has used yet: which server is right?
	ErrServersDiffer error = &reason{"servers of the KMS have different keys under that identifier"}
	ErrNoProvider    error = &reason{"no such provider is configured"}
)

// ErrNameTaken says that a KMS makes no key of this name: it has one, even if this client
// does not find it.
var ErrNameTaken = errors.New("the KMS takes no new key of that name")

// Why a key, or what is under it, is wrong. None of them is an ErrNoKey.
var (
	ErrKeyLength = errors.New("key is not a 256-bit AES key")
	ErrTampered  = errors.New("header was changed or belongs to another file")
	ErrSeal      = errors.New("the settings' seal is wrong")
)

// reason is an ErrNoKey that says why. Compared by address, so that a sentinel is
// itself alone.
type reason struct{ why string }

func (r *reason) Error() string { return ErrNoKey.Error() + ": " + r.why }
func (r *reason) Unwrap() error { return ErrNoKey }

// usefulness orders the reasons when several lockers or providers each gave one: the
// one that a person can act on, or that will pass, comes first.
func usefulness(err error) int {
	for i, r := range []error{
		ErrTampered, ErrLocked, ErrWrongKey, ErrKeyLength, ErrKeyState,
		ErrRefused, ErrUnreachable, ErrNotFound, ErrNoProvider,
	} {
		if errors.Is(err, r) {
			return -i
		}
	}
	return -100
}
