package cryptoblk

import (
	"fmt"
	"testing"
)

// sizes are a unit, a guest's page, a typical long request and FUSE's longest.
var sizes = []int{512, 4 << 10, 128 << 10, 1 << 20}

func BenchmarkEncrypt(b *testing.B) {
	benchmark(b, func(c *Cipher, buf []byte) { c.Encrypt(buf, buf, 12345) })
}

func BenchmarkDecrypt(b *testing.B) {
	benchmark(b, func(c *Cipher, buf []byte) { c.Decrypt(buf, buf, 12345) })
}

func BenchmarkDecryptHoles(b *testing.B) {
	benchmark(b, func(c *Cipher, buf []byte) {
		if buf[0] != 0 {
			clear(buf)
		}
		c.Decrypt(buf, buf, 12345)
	})
}

func benchmark(b *testing.B, call func(*Cipher, []byte)) {
	for _, impl := range implementations() {
		c := mustCipher(b, impl, testKey)
		for _, size := range sizes {
			b.Run(fmt.Sprintf("%s/%d", impl.name, size), func(b *testing.B) {
				buf := random(8, size)
				b.SetBytes(int64(size))
				for b.Loop() {
					call(c, buf)
				}
			})
		}
	}
}
