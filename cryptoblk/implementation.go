package cryptoblk

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
)

// implementationEnv names the environment variable that forces an implementation, for tests and
// diagnosis. The variable is read once.
const implementationEnv = "VMCRYPTFS_CIPHER"

// ErrImplementation is the error for a VMCRYPTFS_CIPHER without meaning here: the name of no
// implementation, or of one missing in this CPU or build.
var ErrImplementation = errors.New("no such cipher implementation here")

// implementation is one way to do the same thing.
type implementation struct {
	name  string
	build func(*[KeySize]byte, *[ScheduleSize]byte) (engine, error)
}

// chosen returns the implementation used by this process.
var chosen = sync.OnceValues(func() (implementation, error) {
	return choose(implementations(), os.Getenv(implementationEnv))
})

// implementations lists the implementations for this CPU, the fastest first.
func implementations() []implementation {
	return append(assembly(), implementation{"portable", newPortable})
}

// choose returns the implementation in available named want, or the first when want is empty.
func choose(available []implementation, want string) (implementation, error) {
	if want == "" {
		return available[0], nil
	}
	names := make([]string, len(available))
	for i, impl := range available {
		if impl.name == want {
			return impl, nil
		}
		names[i] = impl.name
	}
	return implementation{}, fmt.Errorf("cryptoblk: %s=%q: %w; this CPU and build have %s",
		implementationEnv, want, ErrImplementation, strings.Join(names, ", "))
}

// Implementation returns the name of the implementation used by New: "portable", "aesni" (AES-NI,
// 128-bit registers), "vaes" (256-bit) or "vaes512". The name is "none" where VMCRYPTFS_CIPHER
// demands a missing implementation; CheckImplementation says why.
func Implementation() string {
	impl, err := chosen()
	if err != nil {
		return "none"
	}
	return impl.name
}

// CheckImplementation returns the error of every New because of VMCRYPTFS_CIPHER, or nil. With
// the error, a program can refuse to start.
func CheckImplementation() error {
	_, err := chosen()
	return err
}
