package cryptoblk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"unsafe"
)

func TestNewRefusesKeys(t *testing.T) {
	t.Parallel()
	half := random(3, KeySize/2)
	almost := append(slices.Clone(half), half...)
	almost[KeySize-1] ^= 1
	tests := []struct {
		name string
		key  []byte
		want error
	}{
		{"none", nil, ErrKeySize},
		{"short", make([]byte, KeySize-1), ErrKeySize},
		{"long", make([]byte, KeySize+1), ErrKeySize},
		{"AES-128", random(4, 32), ErrKeySize},
		{"zero", make([]byte, KeySize), ErrEqualHalves},
		{"equal halves", append(slices.Clone(half), half...), ErrEqualHalves},
		{"halves that differ in one bit", almost, nil},
		{"random", testKey, nil},
	}
	everywhere(t, func(t *testing.T, impl implementation) {
		for _, test := range tests {
			c, err := newCipher(impl, test.key, nil)
			if !errors.Is(err, test.want) {
				t.Errorf("%s: error %v, want %v", test.name, err, test.want)
			}
			if (c == nil) != (err != nil) {
				t.Errorf("%s: cipher %v with error %v", test.name, c, err)
			}
		}
	})
}

func TestNewRefusesScheduleMemory(t *testing.T) {
	t.Parallel()
	memory := heapSchedule()
	around := make([]byte, ScheduleSize+2*scheduleAlign)
	odd := (scheduleAlign - uintptr(unsafe.Pointer(&around[0]))%scheduleAlign) + 16
	everywhere(t, func(t *testing.T, impl implementation) {
		for name, schedule := range map[string][]byte{
			"empty":     {},
			"short":     memory[:ScheduleSize-1],
			"unaligned": around[odd : odd+ScheduleSize],
		} {
			if _, err := newCipher(impl, testKey, schedule); err == nil {
				t.Errorf("%s schedule memory is accepted", name)
			}
		}
	})
}

func TestWipe(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, impl implementation) {
		schedule := heapSchedule()
		c, err := newCipher(impl, testKey, schedule)
		if err != nil {
			t.Fatal(err)
		}
		c.Encrypt(make([]byte, UnitSize), make([]byte, UnitSize), 0)
		c.Wipe()
		c.Wipe()
		if !isZero(schedule) {
			t.Error("the key schedule outlives Wipe")
		}
		buf := random(5, UnitSize)
		before := slices.Clone(buf)
		mustPanic(t, "Encrypt after Wipe", func() { c.Encrypt(buf, buf, 0) })
		mustPanic(t, "Decrypt after Wipe", func() { c.Decrypt(buf, buf, 0) })
		if !bytes.Equal(buf, before) {
			t.Error("a wiped cipher wrote")
		}
	})
}

func TestCallersBugsPanic(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, impl implementation) {
		c := mustCipher(t, impl, testKey)
		buf := make([]byte, 4*UnitSize)
		tests := []struct {
			name     string
			dst, src []byte
		}{
			{"15 bytes", buf[:15], buf[:15]},
			{"513 bytes", buf[:513], buf[:513]},
			{"short output", buf[:UnitSize-blockSize], buf[UnitSize : 2*UnitSize]},
			{"output a byte ahead", buf[1 : 1+UnitSize], buf[:UnitSize]},
			{"output a byte behind", buf[:UnitSize], buf[1 : 1+UnitSize]},
			{"output a unit ahead", buf[UnitSize : 3*UnitSize], buf[:2*UnitSize]},
		}
		for _, test := range tests {
			mustPanic(t, "encrypt: "+test.name, func() { c.Encrypt(test.dst, test.src, 0) })
			mustPanic(t, "decrypt: "+test.name, func() { c.Decrypt(test.dst, test.src, 0) })
		}
		if !isZero(buf) {
			t.Error("a call that panics wrote")
		}
		c.Encrypt(nil, nil, 0)
		c.Decrypt(nil, nil, 0)
		c.Encrypt(buf[:UnitSize], buf[UnitSize:2*UnitSize], 0) // neighbours do not overlap
	})
}

func mustPanic(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s does not panic", name)
		}
	}()
	f()
}

// TestHoles writes holes in every pattern over nine units, decrypts, and expects
// zeros in the holes and data elsewhere.
func TestHoles(t *testing.T) {
	t.Parallel()
	const n = 9
	plain := random(6, n*UnitSize)
	stored := xtsEncrypt(t, testKey, plain, 1<<32-4)
	everywhere(t, func(t *testing.T, impl implementation) {
		c := mustCipher(t, impl, testKey)
		for pattern := range 1 << n {
			src, want := slices.Clone(stored), slices.Clone(plain)
			for i := range n {
				if pattern>>i&1 == 1 {
					clear(src[i*UnitSize:][:UnitSize])
					clear(want[i*UnitSize:][:UnitSize])
				}
			}
			got := random(7, len(src))
			c.Decrypt(got, src, 1<<32-4)
			if !bytes.Equal(got, want) {
				t.Fatalf("pattern %09b: differs at byte %d", pattern, firstDifference(got, want))
			}
			c.Decrypt(src, src, 1<<32-4)
			if !bytes.Equal(src, want) {
				t.Fatalf("pattern %09b, in place: differs at byte %d", pattern, firstDifference(src, want))
			}
		}
	})
}

// TestAlmostHoles sets one bit anywhere in a zero unit: the unit is data then.
func TestAlmostHoles(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, impl implementation) {
		c := mustCipher(t, impl, testKey)
		for i := range UnitSize {
			stored := make([]byte, 3*UnitSize)
			stored[UnitSize+i] = 1 << (i % 8)
			got := slices.Clone(stored)
			c.Decrypt(got, got, 41)
			again := xtsEncrypt(t, testKey, got[UnitSize:2*UnitSize], 42)
			if !bytes.Equal(again, stored[UnitSize:2*UnitSize]) {
				t.Fatalf("a unit whose byte %d alone is set does not decrypt as data", i)
			}
			if !isZero(got[:UnitSize]) || !isZero(got[2*UnitSize:]) {
				t.Fatalf("byte %d: the holes around it are not zero", i)
			}
		}
	})
}

// TestShortUnitIsNoHole: only whole units are holes.
func TestShortUnitIsNoHole(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, impl implementation) {
		c := mustCipher(t, impl, testKey)
		for n := blockSize; n < UnitSize; n += blockSize {
			got := make([]byte, UnitSize+n)
			c.Decrypt(got, got, 0)
			if !isZero(got[:UnitSize]) {
				t.Errorf("%d bytes behind a hole: the hole is not zero", n)
			}
			if !isZero(xtsEncrypt(t, testKey, got[UnitSize:], 1)) {
				t.Errorf("%d zero bytes do not decrypt as data", n)
			}
		}
	})
}

func TestNoAllocation(t *testing.T) {
	buf := make([]byte, 16<<10+blockSize)
	out := make([]byte, len(buf))
	for _, impl := range implementations() {
		c := mustCipher(t, impl, testKey)
		for name, call := range map[string]func(){
			"encrypt in place": func() { c.Encrypt(buf, buf, 3) },
			"decrypt in place": func() { c.Decrypt(buf, buf, 3) },
			"encrypt":          func() { c.Encrypt(out, buf, 3) },
			"decrypt":          func() { c.Decrypt(out, buf, 3) },
		} {
			if n := testing.AllocsPerRun(10, call); n != 0 {
				t.Errorf("%s: %s allocates %v times", impl.name, name, n)
			}
		}
	}
}

// TestConcurrentUse is for the race detector, and for state shared between calls.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, impl implementation) {
		c := mustCipher(t, impl, testKey)
		plain := random(14, 20*UnitSize)
		var wg sync.WaitGroup
		for i := range uint64(4) {
			want := xtsEncrypt(t, testKey, plain, i)
			wg.Go(func() {
				got := bytes.Clone(plain)
				for range 50 {
					c.Encrypt(got, got, i)
					if !bytes.Equal(got, want) {
						t.Errorf("goroutine %d: encrypt differs", i)
						return
					}
					c.Decrypt(got, got, i)
				}
				if !bytes.Equal(got, plain) {
					t.Errorf("goroutine %d: decrypt differs", i)
				}
			})
		}
		wg.Wait()
	})
}

// TestHolesInLongRuns has runs of holes and of data of all lengths, longer than a kernel's stock
// of tweaks and shorter.
func TestHolesInLongRuns(t *testing.T) {
	t.Parallel()
	const n = 200
	plain := random(15, n*UnitSize)
	stored := xtsEncrypt(t, testKey, plain, 9)
	everywhere(t, func(t *testing.T, impl implementation) {
		c := mustCipher(t, impl, testKey)
		r := rand.New(rand.NewPCG(16, 0))
		for round := range 60 {
			src, want := slices.Clone(stored), slices.Clone(plain)
			for i := r.IntN(20); i < n; i += 1 + r.IntN(40) {
				for holes := r.IntN(40); holes > 0 && i < n; holes-- {
					clear(src[i*UnitSize:][:UnitSize])
					clear(want[i*UnitSize:][:UnitSize])
					i++
				}
			}
			c.Decrypt(src, src, 9)
			if !bytes.Equal(src, want) {
				t.Fatalf("round %d: differs in unit %d", round, firstDifference(src, want)/UnitSize)
			}
		}
	})
}
