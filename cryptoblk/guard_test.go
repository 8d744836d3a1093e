package cryptoblk

import (
	"bytes"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aligned returns n bytes whose address is align more than a multiple of 64.
func aligned(n, align int) []byte {
	b := make([]byte, n+127)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) % 64)
	return b[skip+align : skip+align+n]
}

// guarded returns n bytes of whole pages between two inaccessible pages.
func guarded(t *testing.T, n int) []byte {
	t.Helper()
	page := unix.Getpagesize()
	inner := (n + page - 1) / page * page
	all, err := unix.Mmap(-1, 0, inner+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(all); err != nil {
			t.Error(err)
		}
	})
	for _, guard := range [][]byte{all[:page], all[page+inner:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	return all[page : page+inner]
}

// TestOutOfBounds puts input and output against inaccessible pages, or up to 63 bytes from the
// pages, and expects the right bytes there and all other bytes unchanged. The old content of the
// output is irrelevant, and the input stays unchanged.
func TestOutOfBounds(t *testing.T) {
	const longest = 17*UnitSize + 5*blockSize
	plain := random(12, longest)
	want := xtsEncrypt(t, testKey, plain, 77)
	sealed := bytes.Clone(want)
	clear(sealed[2*UnitSize : 4*UnitSize]) // holes
	withHoles := bytes.Clone(plain)
	clear(withHoles[2*UnitSize : 4*UnitSize])
	lengths := []int{
		16, 32, 112, 128, 144, 240, 256, 272, 496, 512, 528, 1024, 2048, 4096,
		4096 + 16, 8192, 16*UnitSize + 496, 17 * UnitSize, longest,
	}
	for _, impl := range implementations() {
		t.Run(impl.name, func(t *testing.T) {
			in, out := guarded(t, longest), guarded(t, longest)
			c := mustCipher(t, impl, testKey)
			for gap := range 64 {
				for _, n := range lengths {
					if n+gap > len(in) {
						continue
					}
					for _, off := range []int{gap, len(in) - gap - n} {
						checkBounds(t, "encrypt", c.Encrypt, in, out, off, plain[:n], want[:n])
						checkBounds(t, "decrypt", c.Decrypt, in, out, off, sealed[:n], withHoles[:n])
					}
				}
			}
		})
	}
}

// checkBounds calls do on off's place in in, to the same place in out and then in
// place.
func checkBounds(t *testing.T, name string, do func(dst, src []byte, unit uint64), in, out []byte, off int, src, want []byte) {
	t.Helper()
	const dirt = "Z"
	n := len(src)
	for _, dst := range [][]byte{out, in} {
		for _, b := range [][]byte{in, out} {
			for i := range b {
				b[i] = dirt[0]
			}
		}
		copy(in[off:], src)
		do(dst[off:off+n], in[off:off+n], 77)
		if !bytes.Equal(dst[off:off+n], want) {
			t.Fatalf("%s: %d bytes at %d: differs at byte %d", name, n, off, firstDifference(dst[off:off+n], want))
		}
		if &dst[0] == &out[0] && !bytes.Equal(in[off:off+n], src) {
			t.Fatalf("%s: %d bytes at %d: input altered", name, n, off)
		}
		if len(bytes.Trim(dst[:off], dirt)) > 0 || len(bytes.Trim(dst[off+n:], dirt)) > 0 {
			t.Fatalf("%s: %d bytes at %d: bytes beside the output altered", name, n, off)
		}
	}
}
