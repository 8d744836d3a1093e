package cryptoblk

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// childEnv makes the test binary print its choice and the result of New.
const childEnv = "CRYPTOBLK_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	buf := make([]byte, 4*UnitSize)
	c, err := New(testKey, nil)
	if err != nil {
		fmt.Println(Implementation(), err)
		return
	}
	c.Encrypt(buf, buf, 5)
	fmt.Printf("%s %x\n", Implementation(), buf)
}

// child runs this test binary with environ and returns the first word printed, and the rest.
func child(t *testing.T, environ ...string) (name, rest string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), append(environ, childEnv+"=1")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	name, rest, _ = strings.Cut(strings.TrimSpace(string(out)), " ")
	return name, rest
}

func TestOverride(t *testing.T) {
	t.Parallel()
	want := fmt.Sprintf("%x", xtsEncrypt(t, testKey, make([]byte, 4*UnitSize), 5))
	for _, impl := range implementations() {
		name, got := child(t, implementationEnv+"="+impl.name)
		if name != impl.name {
			t.Errorf("%s=%s chooses %s", implementationEnv, impl.name, name)
		}
		if got != want {
			t.Errorf("%s=%s: other bytes than x/crypto/xts", implementationEnv, impl.name)
		}
	}
	for _, unknown := range []string{"vaes1024", "AESNI", "portable "} {
		name, got := child(t, implementationEnv+"="+unknown)
		if name != "none" || !strings.Contains(got, unknown) || !strings.Contains(got, ErrImplementation.Error()) {
			t.Errorf("%s=%s: %s %s", implementationEnv, unknown, name, got)
		}
	}
}

// TestMaskedFeatures takes features away as a lesser CPU would.
func TestMaskedFeatures(t *testing.T) {
	t.Parallel()
	want := fmt.Sprintf("%x", xtsEncrypt(t, testKey, make([]byte, 4*UnitSize), 5))
	has := map[string]bool{}
	for _, impl := range implementations() {
		has[impl.name] = true
	}
	tests := []struct {
		off  string   // x/sys/cpu's and the runtime's names
		then []string // the first of these names present in this CPU
	}{
		{"cpu.avx512f=off", []string{"vaes", "aesni", "portable"}},
		{"cpu.avx2=off,cpu.avx512f=off", []string{"aesni", "portable"}},
		{"cpu.aes=off", []string{"portable"}},
		{"cpu.pclmulqdq=off", []string{"portable"}},
		{"cpu.avx=off", []string{"portable"}},
		{"cpu.all=off", []string{"portable"}},
	}
	for _, test := range tests {
		var expect string
		for _, name := range test.then {
			if has[name] {
				expect = name
				break
			}
		}
		name, got := child(t, "GODEBUG="+test.off, implementationEnv+"=")
		if name != expect {
			t.Errorf("GODEBUG=%s chooses %s, want %s", test.off, name, expect)
		}
		if got != want {
			t.Errorf("GODEBUG=%s: other bytes than x/crypto/xts", test.off)
		}
	}
}
