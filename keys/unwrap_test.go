package keys

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmcryptfs/layout"
)

// header has lockers for the given keys of KMSs, in order.
func header(t *testing.T, names ...name) *layout.Header {
	t.Helper()
	dek, err := NewDEK()
	if err != nil {
		t.Fatal(err)
	}
	defer dek.Wipe()
	h := &layout.Header{Generation: 1, FileID: layout.FileID{6: 0x40, 8: 0x80}}
	for i, n := range names {
		k := newKEK(t, n.provider, n.id, material(n.provider+n.id))
		if err := k.Wrap(h, i, dek); err != nil {
			t.Fatal(err)
		}
	}
	dek.Seal(h)
	return h
}

// open unwraps h, wipes the DEK and returns the error.
func open(ctx context.Context, c *Cache, h *layout.Header) error {
	dek, err := c.Unwrap(ctx, h)
	dek.Wipe()
	return err
}

func TestUnwrapChooses(t *testing.T) {
	corp, escrow := name{"corp", "a"}, name{"escrow", "e"}
	for _, c := range []struct {
		name         string
		corp, escrow error // errors of the providers; nil: the provider serves
		lockers      []name
		want         error
	}{
		{"one locker", nil, nil, []name{corp}, nil},
		{"second provider alone", ErrUnreachable, nil, []name{corp, escrow}, nil},
		{"first provider alone", nil, ErrRefused, []name{corp, escrow}, nil},
		{"reverse order", nil, ErrUnreachable, []name{escrow, corp}, nil},
		{"missing and unreachable", ErrNotFound, ErrUnreachable, []name{corp, escrow}, ErrUnreachable},
		{"unreachable and missing", ErrUnreachable, ErrNotFound, []name{corp, escrow}, ErrUnreachable},
		{"refused and unreachable", ErrRefused, ErrUnreachable, []name{corp, escrow}, ErrRefused},
		{"not active and refused", ErrKeyState, ErrRefused, []name{corp, escrow}, ErrKeyState},
		{"both missing", ErrNotFound, ErrNotFound, []name{corp, escrow}, ErrNotFound},
		{"eight lockers", ErrNotFound, nil, []name{corp, corp, corp, corp, corp, corp, corp, escrow}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			kms, second := newFakeKMS("corp", "a"), newFakeKMS("escrow", "e")
			kms.fail, second.fail = c.corp, c.escrow
			err := open(t.Context(), newCache(t, kms, second), header(t, c.lockers...))
			if c.want == nil && err != nil {
				t.Error(err)
			}
			if c.want != nil {
				wantIs(t, err, c.want)
			}
		})
	}
}

// A hanging KMS does not keep a file shut that another KMS opens.
func TestUnwrapPastHungProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, second := newFakeKMS("corp", "a"), newFakeKMS("escrow", "e")
		kms.hang = true
		c := newCache(t, kms, second)
		start := time.Now()
		if err := open(t.Context(), c, header(t, name{"corp", "a"}, name{"escrow", "e"})); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("waited %v", d)
		}
	})
}

// A held KEK opens with no request, whatever the position of the locker.
func TestUnwrapHeldFirst(t *testing.T) {
	kms, second := newFakeKMS("corp", "a"), newFakeKMS("escrow", "e")
	c := newCache(t, kms, second)
	hold(t, c, second, "e")
	if err := open(t.Context(), c, header(t, name{"corp", "a"}, name{"escrow", "e"})); err != nil {
		t.Error(err)
	}
	if n := kms.getCount(); n != 0 {
		t.Errorf("%d requests to the other provider", n)
	}
}

// A locker with an unconfigured provider name opens by any provider with the key.
func TestUnwrapRenamedProvider(t *testing.T) {
	renamed := newFakeKMS("new-name")
	renamed.keys["a"] = material("corpa")
	impostor := newFakeKMS("impostor", "a") // the same identifier, another key
	h := header(t, name{"corp", "a"})
	if err := open(t.Context(), newCache(t, impostor, renamed), h); err != nil {
		t.Error(err)
	}
	wantIs(t, open(t.Context(), newCache(t, impostor), h), ErrWrongKey)
	// A configured name is asked, and nobody else.
	corp := newFakeKMS("corp")
	wantIs(t, open(t.Context(), newCache(t, corp, renamed), h), ErrNotFound)
}

// A changed header is no missing key: no other locker, no other provider and no memory of a
// failed look-up.
func TestUnwrapTampered(t *testing.T) {
	kms, second := newFakeKMS("corp", "a"), newFakeKMS("escrow", "e")
	c := newCache(t, kms, second)
	hold(t, c, kms, "a")
	h := header(t, name{"corp", "a"}, name{"escrow", "e"})
	good := *h
	h.Lockers[0].Wrapped[0] ^= 1
	err := open(t.Context(), c, h)
	if !errors.Is(err, ErrTampered) || errors.Is(err, ErrNoKey) {
		t.Errorf("error %v, want ErrTampered", err)
	}
	if n := second.getCount(); n != 0 {
		t.Errorf("%d requests to the other provider", n)
	}
	if err := open(t.Context(), c, &good); err != nil {
		t.Errorf("the right header: %v", err)
	}
}

func TestUnwrapNoLocker(t *testing.T) {
	c, none := newCache(t, newFakeKMS("corp", "a")), newCache(t)
	empty := &layout.Header{Generation: 1}
	unknown := &layout.Header{Generation: 1}
	unknown.Lockers[3].Wrap = 9
	if err := open(t.Context(), c, empty); !errors.Is(err, layout.ErrDamaged) {
		t.Errorf("no locker: %v, want ErrDamaged", err)
	}
	if err := open(t.Context(), c, unknown); !errors.Is(err, layout.ErrUnsupported) {
		t.Errorf("unknown wrap alone: %v, want ErrUnsupported", err)
	}
	wantIs(t, open(t.Context(), none, header(t, name{"corp", "a"})), ErrNoProvider)
}

// Names in a header are an attacker's until the MAC is checked.
func TestUnwrapEscapesNames(t *testing.T) {
	h := header(t, name{"corp", "a"})
	h.Lockers[0].KeyID = "a\x1b[2J\nforged line"
	err := open(t.Context(), newCache(t, newFakeKMS("corp")), h)
	wantIs(t, err, ErrNotFound)
	if strings.ContainsAny(err.Error(), "\x1b\n") {
		t.Errorf("error not escaped: %q", err)
	}
}

func TestUnwrapLocked(t *testing.T) {
	kms, second := newFakeKMS("corp", "a"), newFakeKMS("escrow", "e")
	c := newCache(t, kms, second)
	c.Lock()
	for _, h := range []*layout.Header{header(t, name{"corp", "a"}), header(t, name{"corp", "a"}, name{"escrow", "e"})} {
		wantIs(t, open(t.Context(), c, h), ErrLocked)
	}
}

// After every way an Unwrap can end, no use of a KEK is left counted: Lock wipes all.
func TestUnwrapLeavesNoUse(t *testing.T) {
	kms, second := newFakeKMS("corp", "a"), newFakeKMS("escrow", "e")
	c := newCache(t, kms, second)
	h := header(t, name{"corp", "a"}, name{"escrow", "e"})
	bad := *h
	bad.MAC[0] ^= 1
	for i := range 50 {
		if err := open(t.Context(), c, h); err != nil {
			t.Fatal(err)
		}
		open(t.Context(), c, &bad)
		if i%5 == 4 {
			var keks []*KEK
			c.mu.Lock()
			for n, hs := range c.held {
				for _, held := range hs {
					keks = append(keks, held.kek)
					if held.users != 0 {
						t.Errorf("%s has %d users", n, held.users)
					}
				}
			}
			c.mu.Unlock()
			c.Lock()
			for _, k := range keks {
				if k.secret.Bytes() != nil {
					t.Errorf("%s not wiped", k)
				}
			}
			c.Unlock()
		}
	}
}

// Two KEKs arrive together: the unused one is given back.
func TestUnwrapArriveTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms, second := newFakeKMS("corp", "a"), newFakeKMS("escrow", "e")
		kms.delay, second.delay = time.Second, time.Second
		c := newCache(t, kms, second)
		// Two lockers of one KEK wait for one request, and are answered at once.
		h := header(t, name{"corp", "a"}, name{"corp", "a"}, name{"escrow", "e"})
		for range 50 {
			if err := open(t.Context(), c, h); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			c.mu.Lock()
			for n, hs := range c.held {
				if hs[0].users != 0 {
					t.Errorf("%s has %d users", n, hs[0].users)
				}
			}
			c.mu.Unlock()
			c.Lock()
			if held := c.Held(); len(held) != 0 {
				t.Errorf("held after Lock: %v", held)
			}
			c.Unlock()
		}
	})
}

func BenchmarkUnwrapHeld(b *testing.B) {
	kms := newFakeKMS("corp", "a")
	c := newCache(b, kms)
	dek, err := NewDEK()
	if err != nil {
		b.Fatal(err)
	}
	defer dek.Wipe()
	h := &layout.Header{Generation: 1}
	if err := newKEK(b, "corp", "a", material("corpa")).Wrap(h, 0, dek); err != nil {
		b.Fatal(err)
	}
	dek.Seal(h)
	for b.Loop() {
		if err := open(b.Context(), c, h); err != nil {
			b.Fatal(fmt.Errorf("held: %w", err))
		}
	}
}

// A KEK without a known check value is the KEK accepted by its proof; an unproven KEK is not
// held.
func TestProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp", "a")
		c := newCache(t, kms)
		defer c.Close()
		want := kms.ref(t, "a")
		proves := func(k *KEK) bool { _, err := k.derive(nil, "any"); return err == nil && k.CheckValue() == *want.Check }
		right := Ref{Provider: "corp", ID: "a", Proves: proves}
		kms.do(func() { kms.keys["a"] = material("another") })
		if err := c.Use(t.Context(), right, nothing); !errors.Is(err, ErrWrongKey) {
			t.Errorf("with a KEK that is not proven: %v, want %v", err, ErrWrongKey)
		}
		if held := c.Held(); len(held) != 0 {
			t.Errorf("held: %v", held)
		}
		gets := kms.getCount()
		if err := c.Use(t.Context(), right, nothing); !errors.Is(err, ErrWrongKey) || kms.getCount() != gets {
			t.Errorf("at once again: %v, and the KMS was asked %d times more", err, kms.getCount()-gets)
		}
		kms.do(func() { kms.keys["a"] = material("corpa") })
		time.Sleep(refusedFor)
		if err := c.Use(t.Context(), right, nothing); err != nil {
			t.Errorf("with the right KEK: %v", err)
		}
	})
}
