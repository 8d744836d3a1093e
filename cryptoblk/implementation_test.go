package cryptoblk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// everywhere runs test on each implementation for this CPU, called directly and not through the
// choice.
func everywhere(t *testing.T, test func(*testing.T, implementation)) {
	t.Helper()
	for _, impl := range implementations() {
		t.Run(impl.name, func(t *testing.T) {
			t.Parallel()
			test(t, impl)
		})
	}
}

// mustCipher returns impl's cipher for key, wiped when the test ends.
func mustCipher(t testing.TB, impl implementation, key []byte) *Cipher {
	t.Helper()
	c, err := newCipher(impl, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Wipe)
	return c
}

// random returns n bytes decided by seed alone, none of them zero, so no unit is a hole.
func random(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(1 + r.IntN(255))
	}
	return b
}

var testKey = random(1, KeySize)

func TestChoose(t *testing.T) {
	t.Parallel()
	fast, slow := implementation{name: "fast"}, implementation{name: "slow"}
	available := []implementation{fast, slow}
	for want, got := range map[string]string{"": "fast", "fast": "fast", "slow": "slow"} {
		impl, err := choose(available, want)
		if err != nil || impl.name != got {
			t.Errorf("choose(%q) = %q, %v; want %q", want, impl.name, err, got)
		}
	}
	for _, want := range []string{"vaes", "FAST", " ", "fast,slow"} {
		_, err := choose(available, want)
		if !errors.Is(err, ErrImplementation) {
			t.Errorf("choose(%q): error %v, want ErrImplementation", want, err)
			continue
		}
		for _, part := range []string{implementationEnv, want, "fast, slow"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("choose(%q): error %q does not tell %q", want, err, part)
			}
		}
	}
}

func TestImplementationIsTheOneNewUses(t *testing.T) {
	t.Parallel()
	if err := CheckImplementation(); err != nil {
		t.Fatal(err)
	}
	c, err := New(testKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wipe()
	for _, impl := range implementations() {
		if impl.name != Implementation() {
			continue
		}
		want, got := make([]byte, UnitSize), make([]byte, UnitSize)
		mustCipher(t, impl, testKey).Encrypt(want, want, 7)
		c.Encrypt(got, got, 7)
		if !bytes.Equal(got, want) {
			t.Errorf("New and %s give different bytes", impl.name)
		}
		return
	}
	t.Errorf("Implementation() = %q is not in the list", Implementation())
}
