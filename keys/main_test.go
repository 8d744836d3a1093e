package keys

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain also runs the child of tests about hardening or limiting a whole process.
func TestMain(m *testing.M) {
	if role := os.Getenv("KEYS_TEST_CHILD"); role != "" {
		os.Exit(child(role))
	}
	goleak.VerifyTestMain(m)
}
