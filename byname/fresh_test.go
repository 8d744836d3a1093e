package byname

import (
	"encoding/hex"
	"testing"
)

func TestFresh(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 100 {
		name := Fresh()
		if raw, err := hex.DecodeString(name); err != nil || len(raw) != 8 {
			t.Errorf("Fresh() = %q, want 16 hexadecimal digits", name)
		}
		if seen[name] {
			t.Errorf("Fresh gives %q twice", name)
		}
		seen[name] = true
	}
}
