package keys

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// fakeKMS is a Provider over a map; the fields make the fake fail or hang.
type fakeKMS struct {
	name  string
	delay time.Duration // of every Get and State

	mu     sync.Mutex
	keys   map[string][]byte
	states map[string]State // Active if not listed
	fail   error            // of every Get and State
	odd    map[string]error // of Get and State of the listed keys
	health []ServerHealth
	hang   bool // Get and State return only when the context ends
	gets   int
	closed bool
}

func newFakeKMS(name string, ids ...string) *fakeKMS {
	f := &fakeKMS{name: name, keys: map[string][]byte{}, states: map[string]State{}}
	for _, id := range ids {
		f.keys[id] = material(name + id)
	}
	return f
}

// material returns a KEK of its own for every seed.
func material(seed string) []byte {
	b := make([]byte, KEKSize)
	copy(b, fmt.Sprintf("%-32s", seed))
	return b
}

// do changes the KMS between or during requests.
func (f *fakeKMS) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeKMS) getCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gets
}

func (f *fakeKMS) answer(ctx context.Context) error {
	if f.delay > 0 {
		select {
		case <-time.After(f.delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	hang, fail := f.hang, f.fail
	f.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return fail
}

func (f *fakeKMS) Name() string { return f.name }

func (f *fakeKMS) Get(ctx context.Context, id string, _ func(*KEK) bool) (*KEK, State, error) {
	f.do(func() { f.gets++ })
	if err := f.answer(ctx); err != nil {
		return nil, StateUnknown, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	state, err := f.state(id)
	if err != nil {
		return nil, StateUnknown, err
	}
	kek, err := NewKEK(f.name, id, f.keys[id])
	return kek, state, err
}

func (f *fakeKMS) State(ctx context.Context, id string) (State, error) {
	if err := f.answer(ctx); err != nil {
		return StateUnknown, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state(id)
}

// state returns the state of the key id, or why none can be had. Called with mu held.
func (f *fakeKMS) state(id string) (State, error) {
	if err := f.odd[id]; err != nil {
		return StateUnknown, err
	}
	if _, ok := f.keys[id]; !ok {
		return StateUnknown, ErrNotFound
	}
	if s, ok := f.states[id]; ok {
		return s, nil
	}
	return Active, nil
}

func (f *fakeKMS) Ready(ctx context.Context, id string) (check [16]byte, err error) {
	_, err = f.State(ctx, id)
	return check, err
}

func (f *fakeKMS) Create(context.Context, string) (*KEK, error) {
	return nil, errors.New("the fake KMS creates no key")
}

func (f *fakeKMS) Health() []ServerHealth {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.health
}

func (f *fakeKMS) Close() error {
	f.do(func() { f.closed = true })
	return nil
}

// newCache returns a cache closed at the end of the test. In a synctest bubble, close the cache
// by hand before the bubble ends.
func newCache(t testing.TB, kms ...*fakeKMS) *Cache {
	t.Helper()
	var ps []Provider
	for _, k := range kms {
		ps = append(ps, k)
	}
	c := NewCache(discard(), ps...)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// ref returns a Ref to a fake KMS's key, with the check value.
func (f *fakeKMS) ref(t testing.TB, id string) Ref {
	t.Helper()
	f.mu.Lock()
	m := f.keys[id]
	f.mu.Unlock()
	k, err := NewKEK(f.name, id, m)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Wipe()
	check := k.CheckValue()
	return Ref{Provider: f.name, ID: id, Check: &check}
}

func nothing(*KEK) error { return nil }

// wantIs checks that err is want, and an ErrNoKey.
func wantIs(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || !errors.Is(err, ErrNoKey) {
		t.Errorf("error %v, want %v", err, want)
	}
}
