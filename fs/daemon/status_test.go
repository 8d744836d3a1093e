package daemon

import (
	"strings"
	"testing"

	"vmcryptfs/fs/admin"
	"vmcryptfs/fs/wire"
	"vmcryptfs/keys"
)

// Of all held keys, only one lost by the KMS causes the advice to rekey.
func TestHostWarningsOfMissingKey(t *testing.T) {
	t.Parallel()
	name := wire.KeyName{Provider: "corp", Identifier: "85"}
	for state := keys.StateUnknown; state <= keys.Missing; state++ {
		s := admin.Status{
			Mount: admin.Mount{Mountpoint: "/vm/one"},
			Keys:  []admin.Key{{KeyName: name, State: state.String()}},
		}
		text := strings.Join(hostWarnings(s), "\n")
		said := strings.Contains(text, "provider corp has key 85 no more") && strings.Contains(text, "vmcryptfs rekey --new /vm/one")
		if said != (state == keys.Missing) {
			t.Errorf("%s: warnings %q", state, text)
		}
	}
}
