package kmip_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	ovh "github.com/ovh/kmip-go"

	"vmcryptfs/keys"
)

// TestServersDiffer: a key without a known check value is taken up only if all servers that give
// the key give the same one.
func TestServersDiffer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		second func(f *foreign, id string)
		want   error
	}{
		{"the same", func(*foreign, string) {}, nil},
		{"another", func(f *foreign, id string) {
			f.vault.edit(t, id, func(k *foreignKey) { k.material[31] ^= 1 })
		}, keys.ErrServersDiffer},
		{"missing", func(f *foreign, _ string) { f.vault.keys = newVault().keys }, nil},
		{"short", func(f *foreign, id string) {
			f.vault.edit(t, id, func(k *foreignKey) { k.material = k.material[:16] })
		}, nil},
		{"down", func(f *foreign, _ string) { f.stop() }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, first, second, kek := replicas(t)
			c.second(second, kek.ID)
			check, err := open(t, p.config(t, first.address, second.address)).Ready(t.Context(), kek.ID)
			if err == nil && check != kek.CheckValue() {
				t.Errorf("the check value is %x, want %x", check, kek.CheckValue())
			}
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("ready: %v, want %v", err, c.want)
			}
			if err != nil && (!strings.Contains(err.Error(), first.address) || !strings.Contains(err.Error(), second.address)) {
				t.Errorf("%v: does not name both servers", err)
			}
		})
	}
}

// TestNotHeardOut: a caller that gives up before every server has answered learns nothing.
func TestNotHeardOut(t *testing.T) {
	t.Parallel()
	p, first, second, provider := foreignPair(t)
	kek := create(t, open(t, p.config(t, first.address)))
	ctx, cancel := context.WithCancel(t.Context())
	second.trouble.Store(&trouble{ovh.OperationGet, func(f *foreign, _ net.Conn, _ []byte) error {
		cancel()
		<-f.ended
		return errSpoilt
	}})
	if _, err := provider.Ready(ctx, kek.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("ready: %v, want %v", err, context.Canceled)
	}
}

// TestNewKeyOfOtherKMS: where identifiers are small numbers, a server of another KMS has a key of
// its own under a new key's identifier.
func TestNewKeyOfOtherKMS(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	first, other := newForeign(t, p, newVault()), newForeign(t, p, newVault())
	theirs := create(t, open(t, p.config(t, other.address)))
	kek, err := open(t, p.config(t, first.address, other.address)).Create(t.Context(), label())
	defer kek.Wipe()
	if !errors.Is(err, keys.ErrServersDiffer) || !strings.Contains(err.Error(), theirs.ID) {
		t.Errorf("create: %v, want %v of key %s", err, keys.ErrServersDiffer, theirs.ID)
	}
}
