package keys

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// hold fetches a key and returns its reference.
func hold(t *testing.T, c *Cache, kms *fakeKMS, id string) Ref {
	t.Helper()
	ref := kms.ref(t, id)
	if err := c.Use(t.Context(), ref, nothing); err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestRefreshStates(t *testing.T) {
	for _, c := range []struct {
		name  string
		after func(*fakeKMS) // the event at the KMS
		state string         // as Held tells after the refresh; empty: dropped
	}{
		{"active", func(*fakeKMS) {}, "active"},
		{"deactivated", func(k *fakeKMS) { k.states["a"] = Deactivated }, "deactivated"},
		{"compromised", func(k *fakeKMS) { k.states["a"] = Compromised }, "compromised"},
		{"destroyed", func(k *fakeKMS) { k.states["a"] = Destroyed }, ""},
		{"destroyed compromised", func(k *fakeKMS) { k.states["a"] = DestroyedCompromised }, ""},
		{"not found", func(k *fakeKMS) { delete(k.keys, "a") }, "missing in KMS"},
		{"unreachable", func(k *fakeKMS) { k.fail = ErrUnreachable }, "active"},
		{"refused", func(k *fakeKMS) { k.fail = ErrRefused }, "active"},
		{"hung", func(k *fakeKMS) { k.hang = true }, "active"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kms := newFakeKMS("corp", "a")
				cache := newCache(t, kms)
				hold(t, cache, kms, "a")
				kms.do(func() { c.after(kms) })
				time.Sleep(refreshEvery - time.Second)
				if held := cache.Held(); len(held) != 1 || held[0].State != "active" {
					t.Fatalf("before the refresh: %v", held)
				}
				time.Sleep(time.Second + fetchLimit)
				synctest.Wait()
				state := ""
				for _, k := range cache.Held() {
					state = k.State
				}
				if state != c.state {
					t.Errorf("after the refresh %q, want %q", state, c.state)
				}
			})
		})
	}
}

// A day with the KMS away: the held key serves all the time.
func TestRefreshOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp", "a")
		c := newCache(t, kms)
		ref := hold(t, c, kms, "a")
		kms.do(func() { kms.hang = true })
		for range 24 {
			time.Sleep(time.Hour)
			if err := c.Use(t.Context(), ref, nothing); err != nil {
				t.Fatal(err)
			}
			if err := c.UseForNew(t.Context(), ref, nothing); err != nil {
				t.Fatal(err)
			}
		}
		if n := kms.getCount(); n != 1 {
			t.Errorf("%d requests for the key, want 1", n)
		}
	})
}

// A KMS restored without the key: the copy held by this host may be the last one. The copy opens
// files for the rekey recommended by the log, wraps no new key, and is well again with the KMS.
func TestRefreshMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		kms := newFakeKMS("corp", "a")
		c := NewCache(slog.New(slog.NewTextHandler(&log, nil)), kms)
		ref := hold(t, c, kms, "a")
		var kept []byte
		kms.do(func() { kept = kms.keys["a"]; delete(kms.keys, "a") })
		time.Sleep(24 * time.Hour)
		if err := c.Use(t.Context(), ref, nothing); err != nil {
			t.Errorf("use of a missing key that is held: %v", err)
		}
		wantIs(t, c.UseForNew(t.Context(), ref, nothing), ErrKeyState)
		kms.do(func() { kms.keys["a"] = kept })
		time.Sleep(refreshEvery + time.Second)
		if err := c.UseForNew(t.Context(), ref, nothing); err != nil {
			t.Errorf("after the KMS has it again: %v", err)
		}
		if n := kms.getCount(); n != 1 {
			t.Errorf("%d requests for the key, want 1", n)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "rekey now"); n != 1 || !strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("said %d times, want once as an error:\n%s", n, &log)
		}
	})
}

// A key destroyed during a use is wiped after the use.
func TestRefreshDestroyedInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp", "a")
		c := newCache(t, kms)
		var kek *KEK
		err := c.Use(t.Context(), kms.ref(t, "a"), func(k *KEK) error {
			kek = k
			kms.do(func() { kms.states["a"] = Destroyed })
			time.Sleep(refreshEvery + time.Second)
			if len(c.Held()) != 0 || k.secret.Bytes() == nil {
				t.Errorf("in use: held %v, wiped %v", c.Held(), k.secret.Bytes() == nil)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if kek.secret.Bytes() != nil {
			t.Error("not wiped after the last use")
		}
	})
}

// A hanging provider delays no news of another provider.
func TestRefreshOfTwoProviders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, quick := newFakeKMS("a-slow", "x", "y"), newFakeKMS("b-quick", "z")
		c := newCache(t, slow, quick)
		hold(t, c, slow, "x")
		hold(t, c, slow, "y")
		hold(t, c, quick, "z")
		slow.do(func() { slow.hang = true })
		quick.do(func() { quick.states["z"] = Deactivated })
		time.Sleep(refreshEvery + time.Second)
		var got []string
		for _, k := range c.Held() {
			got = append(got, k.ID+" "+k.State)
		}
		if want := "[x active y active z deactivated]"; fmt.Sprint(got) != want {
			t.Errorf("held %v, want %s", got, want)
		}
	})
}

// A key without an answer delays no news of the other keys.
func TestRefreshPastRefusedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := strings.Fields("refused a b c d e f g h i j k l m n o p q r s t")
		kms := newFakeKMS("corp", ids...)
		c := newCache(t, kms)
		for _, id := range ids {
			hold(t, c, kms, id)
		}
		kms.do(func() {
			kms.odd = map[string]error{"refused": ErrRefused}
			for _, id := range ids {
				kms.states[id] = Destroyed
			}
		})
		time.Sleep(refreshEvery + time.Second)
		if held := c.Held(); len(held) != 1 || held[0].ID != "refused" {
			t.Errorf("after the refresh %v are held, want the refused one alone", held)
		}
	})
}

// News for a person is logged once, with the key's name and no byte of the key.
func TestStateLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		kms := newFakeKMS("corp", "a")
		c := NewCache(slog.New(slog.NewTextHandler(&log, nil)), kms)
		hold(t, c, kms, "a")
		if log.Len() > 0 {
			t.Errorf("log of an active key: %s", &log)
		}
		kms.do(func() { kms.states["a"] = Compromised })
		time.Sleep(10 * refreshEvery)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "compromised"); n != 1 {
			t.Errorf("said %d times, want once:\n%s", n, &log)
		}
		if strings.Contains(log.String(), "corpa") {
			t.Errorf("key material in the log:\n%s", &log)
		}
	})
}
