package keys

import "errors"

// ErrNoKey matches every reason why a key cannot be had now: ENOKEY through the mount, exit code
// 3 in commands.
var ErrNoKey = errors.New("key not available")

// Reasons why a key cannot be had, in vSphere's words where vSphere has words. Ask with
// errors.Is. Each reason matches ErrNoKey too.
var (
	ErrLocked      error = &reason{"missing in cache: the datastore is locked"}
	ErrNotFound    error = &reason{"missing in KMS"}
	ErrUnreachable error = &reason{"cluster unreachable"} // no server of the provider answers
	ErrRefused     error = &reason{"the KMS refuses it"}
	ErrKeyState    error = &reason{"not active or enabled"}
	ErrWrongKey    error = &reason{"the KMS answers with another key under that identifier (was it restored empty?)"}
	// ErrServersDiffer concerns a key unused here so far: nobody can say which server is right.
	ErrServersDiffer error = &reason{"servers of the KMS have different keys under that identifier"}
	ErrNoProvider    error = &reason{"no such provider is configured"}
)

// ErrNameTaken reports that a KMS makes no key of this name: the KMS has such a key, perhaps
// invisible to this client.
var ErrNameTaken = errors.New("the KMS takes no new key of that name")

// Faults of a key, or of data under a key. None matches ErrNoKey.
var (
	ErrKeyLength = errors.New("key is not a 256-bit AES key")
	ErrTampered  = errors.New("header was changed or belongs to another file")
	ErrSeal      = errors.New("the settings' seal is wrong")
)

// reason is an ErrNoKey with its cause. Compared by address, so every sentinel equals itself
// alone.
type reason struct{ why string }

func (r *reason) Error() string { return ErrNoKey.Error() + ": " + r.why }
func (r *reason) Unwrap() error { return ErrNoKey }

// usefulness orders the reasons when several lockers or providers each gave one: the greatest is
// a reason that a person can act on, or that will pass.
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
