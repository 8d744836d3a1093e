package daemon

import (
	"testing"

	vmfs "vmcryptfs/fs"
)

func TestParseUnencrypted(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]Unencrypted{"deny": Unencrypted(vmfs.Deny), "read": Unencrypted(vmfs.Read), "write": Unencrypted(vmfs.Write)} {
		if got, err := ParseUnencrypted(word); err != nil || got != want {
			t.Errorf("ParseUnencrypted(%q) = %v, %v; want %v", word, got, err, want)
		}
	}
	for _, word := range []string{"", "Deny", "readwrite"} {
		if got, err := ParseUnencrypted(word); err == nil || got != Unencrypted(vmfs.Deny) {
			t.Errorf("ParseUnencrypted(%q) = %v, %v; want deny and an error", word, got, err)
		}
	}
}
