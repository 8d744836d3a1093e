package keys

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain also is the child of the tests that harden or limit a whole process.
func TestMain(m *testing.M) {
	if role := os.Getenv("KEYS_TEST_CHILD"); role != "" {
		os.Exit(child(role))
	}
	goleak.VerifyTestMain(m)
}
