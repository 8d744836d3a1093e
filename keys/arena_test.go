package keys

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestArenaSlots(t *testing.T) {
	var a arena
	for _, n := range []int{1, 16, 63, 64, 65, 255, 256, 257, 1023, 1024, 1025, 2048, 2049, 4095, 4096} {
		b, s, err := a.alloc(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != n || cap(b) != n {
			t.Errorf("%d bytes: len %d, cap %d", n, len(b), cap(b))
		}
		if at := uintptr(unsafe.Pointer(unsafe.SliceData(b))); at%64 != 0 {
			t.Errorf("%d bytes at %#x, not 64-byte aligned", n, at)
		}
		if !allZero(b) {
			t.Errorf("%d bytes not zero", n)
		}
		a.release(s)
	}
}

// Slots taken and given back in any order: slots in use never overlap, a new slot is zero, and at
// the end one empty chunk per class is left mapped.
func TestArenaRandom(t *testing.T) {
	var a arena
	rnd := rand.New(rand.NewPCG(1, 2))
	type use struct {
		b    []byte
		s    slot
		mark byte
	}
	var uses []use
	check := func(u use) {
		if !bytes.Equal(u.b, bytes.Repeat([]byte{u.mark}, len(u.b))) {
			t.Fatalf("slot of %d bytes was overwritten", len(u.b))
		}
	}
	for i := range 6_000 {
		if len(uses) > 0 && rnd.IntN(1000) < len(uses) {
			j := rnd.IntN(len(uses))
			check(uses[j])
			a.release(uses[j].s)
			uses[j] = uses[len(uses)-1]
			uses = uses[:len(uses)-1]
			continue
		}
		b, s, err := a.alloc(1 + rnd.IntN(maxSecret))
		if err != nil {
			t.Fatal(err)
		}
		if !allZero(b) {
			t.Fatal("slot not zero")
		}
		u := use{b, s, byte(i) | 1}
		for i := range b {
			b[i] = u.mark
		}
		uses = append(uses, u)
	}
	for _, u := range uses {
		check(u)
		a.release(u.s)
	}
	for class, room := range a.room {
		if len(room) > 1 {
			t.Errorf("class of %d bytes keeps %d chunks", classSizes[class], len(room))
		}
		for _, c := range room {
			if !allZero(c.slots) {
				t.Errorf("class of %d bytes: key material left", classSizes[class])
			}
		}
	}
}

// A full chunk is used again once one of its slots is free.
func TestArenaFullChunk(t *testing.T) {
	var a arena
	const class = 2
	fill := func() (slots []slot) {
		for range chunkSize / classSizes[class] {
			_, s, err := a.alloc(classSizes[class])
			if err != nil {
				t.Fatal(err)
			}
			slots = append(slots, s)
		}
		return slots
	}
	first := fill()
	if n := len(a.room[class]); n != 0 {
		t.Fatalf("%d chunks with room, want a full one", n)
	}
	for _, s := range first {
		a.release(s)
	}
	for _, s := range fill() {
		if s.chunk != first[0].chunk {
			t.Fatal("another chunk was mapped")
		}
	}
}

func TestArenaConcurrent(t *testing.T) {
	var a arena
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range 300 {
				b, s, err := a.alloc(1024)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range b {
					b[i] = byte(g)
				}
				if !bytes.Equal(b, bytes.Repeat([]byte{byte(g)}, len(b))) {
					t.Error("slot shared")
				}
				a.release(s)
			}
		})
	}
	wg.Wait()
}

// smaps of a chunk: locked (lo), not dumped (dd), wiped on fork (wf), and guards of no
// access on both sides.
func TestChunkProtection(t *testing.T) {
	c, err := mapChunk(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.unmap()
	start := uintptr(unsafe.Pointer(unsafe.SliceData(c.slots)))
	end := start + uintptr(len(c.slots))
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	smaps := string(b)
	area := func(prefix string) string {
		_, rest, ok := strings.Cut("\n"+smaps, "\n"+prefix)
		if !ok {
			t.Fatalf("no mapping %s", prefix)
		}
		flags, _, _ := strings.Cut(rest[strings.Index(rest, "VmFlags:"):], "\n")
		return flags + " "
	}
	flags := area(fmt.Sprintf("%x-%x rw-p", start, end))
	for _, want := range []string{" lo ", " dd ", " wf "} {
		if !strings.Contains(flags, want) {
			t.Errorf("flags %q lack %q", flags, want)
		}
	}
	if !strings.Contains(smaps, fmt.Sprintf("-%x ---p", start)) {
		t.Error("no guard page below")
	}
	if !strings.Contains(smaps, fmt.Sprintf("\n%x-", end)) || !strings.Contains(area(fmt.Sprintf("%x-", end)), "mr") {
		t.Error("no guard page above")
	}
}

func TestSecretWipe(t *testing.T) {
	s, err := NewSecret(100)
	if err != nil {
		t.Fatal(err)
	}
	b := s.Bytes()
	copy(b, "secret")
	s.Wipe()
	if !allZero(b) {
		t.Error("memory is not zero after Wipe")
	}
	if s.Bytes() != nil {
		t.Error("Bytes is not nil after Wipe")
	}
	s.Wipe()
	(*Secret)(nil).Wipe()
}

func TestSecretSizes(t *testing.T) {
	for _, n := range []int{-1, 0, 4097} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("NewSecret(%d) did not panic", n)
				}
			}()
			NewSecret(n)
		}()
	}
}

// A thousand open files lock less than 8 MiB, as systemd's default limit counts for a user
// without CAP_IPC_LOCK.
func TestSecretLimit(t *testing.T) {
	out := runChild(t, "limit")
	if want := "1000 files, then refused"; !strings.Contains(out, want) {
		t.Errorf("child says %q, want %q", out, want)
	}
}

// childLimit makes the secrets of 1,000 files under 4 MiB (half of the given limit), then more
// until the kernel refuses.
func childLimit() error {
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 4 << 20, Max: 4 << 20}); err != nil {
		return err
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	for range 1000 {
		for _, n := range []int{dekSize, 2048} {
			if _, err := NewSecret(n); err != nil {
				return err
			}
		}
	}
	for range 10_000 {
		_, err := NewSecret(maxSecret)
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), "LimitMEMLOCK") {
			return fmt.Errorf("refused without the advice: %w", err)
		}
		fmt.Println("1000 files, then refused")
		return nil
	}
	return errors.New("no limit met")
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
