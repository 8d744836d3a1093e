package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp", "a")
		kms.delay = time.Second
		c := newCache(t, kms)
		ref := kms.ref(t, "a")
		var wg sync.WaitGroup
		var served atomic.Int64
		for i := range 1000 {
			ref := ref
			if i%2 == 0 {
				ref.Check = nil
			}
			wg.Go(func() {
				err := c.Use(t.Context(), ref, func(k *KEK) error {
					if k.ID != "a" || string(k.material()) != string(material("corpa")) {
						t.Error("another key")
					}
					served.Add(1)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := kms.getCount(); n != 1 || served.Load() != 1000 {
			t.Errorf("%d users served by %d requests, want 1000 by 1", served.Load(), n)
		}
	})
}

// A failure too is learned once by all waiters, and by callers soon after.
func TestSingleFlightFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp")
		kms.delay = time.Second
		kms.fail = fmt.Errorf("dial 192.0.2.1: %w", ErrUnreachable)
		c := newCache(t, kms)
		var wg sync.WaitGroup
		for i := range 1000 {
			// The fetch failed for the provider: another key of the provider is no reason to ask
			// again.
			wg.Go(func() {
				err := c.Use(t.Context(), Ref{Provider: "corp", ID: "a"}, nothing)
				wantIs(t, err, ErrUnreachable)
			})
			if i == 0 {
				synctest.Wait()
			}
		}
		wg.Wait()
		start := time.Now()
		wantIs(t, c.Use(t.Context(), Ref{Provider: "corp", ID: "b"}, nothing), ErrUnreachable)
		if d := time.Since(start); d != 0 {
			t.Errorf("the second look-up took %v", d)
		}
		if n := kms.getCount(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// When the KMS is back, keys come within 10 s, whatever failed before.
func TestRecovery(t *testing.T) {
	for _, fail := range []error{ErrUnreachable, ErrNotFound, ErrRefused, ErrKeyState, ErrKeyLength, errors.New("odd")} {
		t.Run(fail.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kms := newFakeKMS("corp", "a")
				kms.fail = fail
				c := newCache(t, kms)
				ref := Ref{Provider: "corp", ID: "a"}
				if err := c.Use(t.Context(), ref, nothing); !errors.Is(err, fail) {
					t.Fatalf("error %v, want %v", err, fail)
				}
				kms.do(func() { kms.fail = nil })
				back := time.Now()
				for c.Use(t.Context(), ref, nothing) != nil {
					if time.Since(back) > 10*time.Second {
						t.Fatal("no key 10 s after the KMS's return")
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		})
	}
}

func TestImpatientWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp", "a")
		kms.delay = 3 * time.Second
		c := newCache(t, kms)
		ref := kms.ref(t, "a")
		var wg sync.WaitGroup
		wg.Go(func() { // begins the fetch and gives up
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			start := time.Now()
			err := c.Use(ctx, ref, nothing)
			wantIs(t, err, ErrUnreachable)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			if err := c.Use(ctx, ref, nothing); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNoKey) {
				t.Errorf("interrupted: %v, want context.Canceled alone", err)
			}
		})
		wg.Go(func() { // stays
			if err := c.Use(t.Context(), ref, nothing); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if n := kms.getCount(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// A fetch without waiters still serves the next caller.
func TestAbandonedFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp", "a")
		kms.delay = 3 * time.Second
		c := newCache(t, kms)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantIs(t, c.Use(ctx, kms.ref(t, "a"), nothing), ErrUnreachable)
		time.Sleep(10 * time.Second)
		if err := c.Use(t.Context(), kms.ref(t, "a"), nothing); err != nil {
			t.Error(err)
		}
		if n := kms.getCount(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// A provider whose own timeout fails is given up after 30 s and counts as away.
func TestHungProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp", "a")
		kms.hang = true
		c := newCache(t, kms)
		start := time.Now()
		wantIs(t, c.Use(t.Context(), kms.ref(t, "a"), nothing), ErrUnreachable)
		if d := time.Since(start); d != fetchLimit {
			t.Errorf("left after %v", d)
		}
	})
}

// A server that answers nonsense about one key is still asked for other keys.
func TestOddKey(t *testing.T) {
	kms := newFakeKMS("corp", "odd", "good")
	kms.odd = map[string]error{"odd": fmt.Errorf("%w: malformed KMIP message", ErrUnreachable)}
	c := newCache(t, kms)
	odd, good := kms.ref(t, "odd"), kms.ref(t, "good")
	kms.do(func() { kms.health = []ServerHealth{{Address: "a"}, {Address: "b", OK: true}} })
	wantIs(t, c.Use(t.Context(), odd, nothing), ErrUnreachable)
	if err := c.Use(t.Context(), good, nothing); err != nil {
		t.Errorf("another key of it: %v", err)
	}
	wantIs(t, c.Use(t.Context(), odd, nothing), ErrUnreachable)
	if n := kms.getCount(); n != 2 {
		t.Errorf("%d requests, want one for each key", n)
	}
}

func TestNoProvider(t *testing.T) {
	c := newCache(t, newFakeKMS("corp", "a"))
	err := c.Use(t.Context(), Ref{Provider: "other\n", ID: "a"}, nothing)
	wantIs(t, err, ErrNoProvider)
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error not escaped: %q", err)
	}
	if c.Provider("corp") == nil || c.Provider("other") != nil || len(c.Providers()) != 1 {
		t.Error("providers are not as given")
	}
}

// The error of the caller's function is the caller's.
func TestUseError(t *testing.T) {
	kms := newFakeKMS("corp", "a")
	c := newCache(t, kms)
	want := errors.New("mine")
	if err := c.Use(t.Context(), kms.ref(t, "a"), func(*KEK) error { return want }); err != want {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestLockDuringUse(t *testing.T) {
	kms := newFakeKMS("corp", "a")
	c := newCache(t, kms)
	ref := kms.ref(t, "a")
	var kek *KEK
	err := c.Use(t.Context(), ref, func(k *KEK) error {
		kek = k
		c.Lock()
		if !c.Locked() || len(c.Held()) != 0 {
			t.Error("not locked")
		}
		if string(k.material()) != string(material("corpa")) {
			t.Error("key wiped under its user")
		}
		wantIs(t, c.Use(t.Context(), ref, nothing), ErrLocked)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if kek.secret.Bytes() != nil {
		t.Error("key not wiped after its last use")
	}
	c.Unlock()
	if err := c.Use(t.Context(), ref, nothing); err != nil {
		t.Errorf("after Unlock: %v", err)
	}
	if n := kms.getCount(); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

// A KEK requested before Lock arrives neither after Lock nor after a quick Unlock.
func TestLockDuringFetch(t *testing.T) {
	for _, unlock := range []bool{false, true} {
		t.Run(fmt.Sprint("unlock ", unlock), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kms := newFakeKMS("corp", "a")
				kms.delay = 2 * time.Second
				c := newCache(t, kms)
				ref := kms.ref(t, "a")
				var wg sync.WaitGroup
				wg.Go(func() { wantIs(t, c.Use(t.Context(), ref, nothing), ErrLocked) })
				synctest.Wait()
				c.Lock()
				if unlock {
					c.Unlock()
				}
				wg.Wait()
				if held := c.Held(); len(held) != 0 {
					t.Errorf("held after Lock: %v", held)
				}
			})
		})
	}
}

// Use, Lock, Unlock and Held run at once: no key is wiped during a use.
func TestLockRace(t *testing.T) {
	kms := newFakeKMS("corp", "a", "b")
	c := newCache(t, kms)
	refs := []Ref{kms.ref(t, "a"), kms.ref(t, "b")}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				ref := refs[(g+i)%2]
				err := c.Use(t.Context(), ref, func(k *KEK) error {
					if string(k.material()) != string(material("corp"+ref.ID)) {
						return errors.New("key wiped under its user")
					}
					return nil
				})
				if err != nil && !errors.Is(err, ErrLocked) {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			c.Lock()
			c.Held()
			c.Unlock()
		}
	})
	wg.Wait()
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp", "a", "b")
		c := newCache(t, kms)
		var kek *KEK
		if err := c.Use(t.Context(), kms.ref(t, "a"), func(k *KEK) error { kek = k; return nil }); err != nil {
			t.Fatal(err)
		}
		kms.do(func() { kms.hang = true })
		ref := kms.ref(t, "b")
		var wg sync.WaitGroup
		wg.Go(func() { wantIs(t, c.Use(t.Context(), ref, nothing), ErrLocked) })
		synctest.Wait()
		start := time.Now()
		for range 2 {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		if d := time.Since(start); d != 0 {
			t.Errorf("Close waited %v for a hung KMS", d)
		}
		if kek.secret.Bytes() != nil {
			t.Error("key not wiped")
		}
		if !kms.closed {
			t.Error("provider not closed")
		}
		c.Unlock()
		wantIs(t, c.Use(t.Context(), ref, nothing), ErrLocked)
	})
}

// A KMS gives another key under the identifier: the file with a check value says so, no wrong key
// stays, and the right key is found once the KMS is put right.
func TestWrongKeyRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp", "a")
		ref := kms.ref(t, "a")
		right := kms.keys["a"]
		kms.keys["a"] = material("restored empty")
		c := newCache(t, kms)
		for range 10 {
			wantIs(t, c.Use(t.Context(), ref, nothing), ErrWrongKey)
		}
		if n := kms.getCount(); n != 1 {
			t.Errorf("%d requests for one wrong key, want 1", n)
		}
		if held := c.Held(); len(held) != 0 {
			t.Errorf("wrong key held: %v", held)
		}
		kms.do(func() { kms.keys["a"] = right })
		time.Sleep(refusedFor)
		if err := c.Use(t.Context(), ref, nothing); err != nil {
			t.Error(err)
		}
	})
}

// A header with an invented check value costs a request now and then. The held key and its users
// lose nothing.
func TestWrongCheckKeepsHeldKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp", "a")
		c := newCache(t, kms)
		ref := kms.ref(t, "a")
		if err := c.Use(t.Context(), ref, nothing); err != nil {
			t.Fatal(err)
		}
		invented := [16]byte{1}
		for range 100 {
			wantIs(t, c.Use(t.Context(), Ref{Provider: "corp", ID: "a", Check: &invented}, nothing), ErrWrongKey)
			if err := c.Use(t.Context(), ref, nothing); err != nil {
				t.Fatal(err)
			}
		}
		if n := kms.getCount(); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

// Waiters of one request have each their own check value.
func TestFlightOfMixedChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp", "a")
		kms.delay = time.Second
		c := newCache(t, kms)
		right, wrong := kms.ref(t, "a"), Ref{Provider: "corp", ID: "a", Check: &[16]byte{1}}
		var wg sync.WaitGroup
		wg.Go(func() { wantIs(t, c.Use(t.Context(), wrong, nothing), ErrWrongKey) })
		synctest.Wait() // the wrong one begins the request
		wg.Go(func() {
			if err := c.Use(t.Context(), right, nothing); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if n := kms.getCount(); n != 1 || len(c.Held()) != 1 {
			t.Errorf("%d requests, held %v; want 1 and one key", n, c.Held())
		}
	})
}

func TestHeld(t *testing.T) {
	kms, escrow := newFakeKMS("corp", "b", "a"), newFakeKMS("escrow", "z")
	kms.states["b"] = Deactivated
	c := newCache(t, escrow, kms)
	if b, err := json.Marshal(c.Held()); err != nil || string(b) != "[]" {
		t.Errorf("nothing held is %s, %v", b, err)
	}
	for _, r := range []Ref{escrow.ref(t, "z"), kms.ref(t, "b"), kms.ref(t, "a")} {
		if err := c.Use(t.Context(), r, nothing); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, k := range c.Held() {
		got = append(got, k.Provider+"/"+k.ID+" "+k.State)
		if time.Since(k.Since) > time.Minute {
			t.Errorf("%s since %v", k.ID, k.Since)
		}
	}
	if want := "[corp/a active corp/b deactivated escrow/z active]"; fmt.Sprint(got) != want {
		t.Errorf("held %v, want %s", got, want)
	}
}

func TestUseForNew(t *testing.T) {
	for _, c := range []struct {
		state         State
		opens, forNew bool
	}{
		{PreActive, false, false},
		{Active, true, true},
		{Deactivated, true, false},
		{Compromised, true, false},
		{Destroyed, false, false},
		{DestroyedCompromised, false, false},
		{StateUnknown, true, false},
	} {
		t.Run(c.state.String(), func(t *testing.T) {
			kms := newFakeKMS("corp", "a")
			kms.states["a"] = c.state
			cache := newCache(t, kms)
			for _, use := range []struct {
				name string
				f    func(context.Context, Ref, func(*KEK) error) error
				want bool
			}{{"Use", cache.Use, c.opens}, {"UseForNew", cache.UseForNew, c.forNew}} {
				err := use.f(t.Context(), kms.ref(t, "a"), nothing)
				if use.want && err != nil {
					t.Errorf("%s: %v", use.name, err)
				}
				if !use.want {
					wantIs(t, err, ErrKeyState)
				}
			}
		})
	}
}

// A state unknown after the fetch is asked for when a new file needs the state.
func TestUseForNewAsksAgain(t *testing.T) {
	kms := &stateless{fakeKMS: newFakeKMS("corp", "a"), err: ErrUnreachable}
	c := NewCache(discard(), kms)
	defer c.Close()
	ref := kms.ref(t, "a")
	if err := c.Use(t.Context(), ref, nothing); err != nil {
		t.Errorf("a key of unknown state opens nothing: %v", err)
	}
	wantIs(t, c.UseForNew(t.Context(), ref, nothing), ErrUnreachable)
	kms.err = nil
	if err := c.UseForNew(t.Context(), ref, nothing); err != nil {
		t.Error(err)
	}
	if s := c.Held()[0].State; s != "active" {
		t.Errorf("state %s", s)
	}
}

// stateless gives keys, but fails to give their state.
type stateless struct {
	*fakeKMS
	err error
}

func (s *stateless) Get(ctx context.Context, id string, accept func(*KEK) bool) (*KEK, State, error) {
	kek, state, err := s.fakeKMS.Get(ctx, id, accept)
	if s.err != nil {
		state = StateUnknown
	}
	return kek, state, err
}

func (s *stateless) State(ctx context.Context, id string) (State, error) {
	if s.err != nil {
		return StateUnknown, s.err
	}
	return s.fakeKMS.State(ctx, id)
}

// A caller that gives up just as the answer comes leaves no use counted.
func TestLeaveAfterAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kms := newFakeKMS("corp", "a")
		c := newCache(t, kms)
		_, f, w, err := c.findOrFetch(kms.ref(t, "a"))
		if err != nil {
			t.Fatal(err)
		}
		<-f.done
		kek := w.got.kek
		c.leave(f, w)
		c.Lock()
		if kek.secret.Bytes() != nil {
			t.Error("key still in use after Lock")
		}
	})
}

// A provider added later serves like the others, and is closed with them.
func TestAdd(t *testing.T) {
	t.Parallel()
	first, late, twice := newFakeKMS("first", "a"), newFakeKMS("late", "b"), newFakeKMS("late")
	c := NewCache(discard(), first)
	if err := c.Use(t.Context(), late.ref(t, "b"), nothing); !errors.Is(err, ErrNoProvider) {
		t.Errorf("before: %v", err)
	}
	if err := c.Add(late); err != nil {
		t.Fatal(err)
	}
	if err := c.Use(t.Context(), late.ref(t, "b"), nothing); err != nil {
		t.Errorf("after: %v", err)
	}
	if err := c.Add(twice); err == nil || !twice.closed {
		t.Errorf("a second one of the name: %v, closed: %v", err, twice.closed)
	}
	if err := c.Close(); err != nil || !late.closed {
		t.Errorf("Close: %v; late closed: %v", err, late.closed)
	}
	after := newFakeKMS("after")
	if err := c.Add(after); !errors.Is(err, ErrLocked) || !after.closed {
		t.Errorf("after Close: %v, closed: %v", err, after.closed)
	}
}
