package cryptoblk

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
)

// implementationEnv names the environment variable that forces an implementation,
// for tests and diagnosis. It is read once.
const implementationEnv = "VMCRYPTFS_CIPHER"

// ErrImplementation is the answer to a VMCRYPTFS_CIPHER that names no
// implementation, or one that this CPU or build does not have.
var ErrImplementation = errors.New("no such cipher implementation here")

// implementation is one way to do the same thing.
type implementation struct {
	name  string
	build func(*[KeySize]byte, *[ScheduleSize]byte) (engine, error)
}

// chosen is the implementation that serves this process.
var chosen = sync.OnceValues(func() (implementation, error) {
	return choose(implementations(), os.Getenv(implementationEnv))
})

// implementations lists those that this CPU can run, the fastest first.
func implementations() []implementation {
	return append(assembly(), implementation{"portable", newPortable})
}

// choose returns the one of available that is called want, or the first when want
// is empty.
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

// Implementation names the implementation that New uses: "portable", "aesni"
// (AES-NI, 128-bit registers), "vaes" (256-bit) or "vaes512". It is "none" where
// VMCRYPTFS_CIPHER asks for one that is not to be had; CheckImplementation says
// why.
func Implementation() string {
	impl, err := chosen()
	if err != nil {
		return "none"
	}
	return impl.name
}

// CheckImplementation returns the error that every New would return because of
// VMCRYPTFS_CIPHER, or nil: for a program to refuse at its start.
func CheckImplementation() error {
	_, err := chosen()
	return err
}
