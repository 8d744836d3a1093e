//go:build !purego

package cryptoblk

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/cpu"

	"vmcryptfs/cryptoblk/internal/residue"
)

// TestNoResidue examines the leftovers of the assembly. No vector register may hold anything,
// except registers used in between by Go's calling convention, and no encrypted tweak, the start
// of all masks, may lie on the dead stack.
func TestNoResidue(t *testing.T) {
	schedule := heapSchedule()
	buf := random(17, 50*UnitSize)
	keys, data := &schedule[0], &buf[0]
	calls := map[string]func(){
		"expandKeys":   func() { expandKeys(keys, &testKey[0]) },
		"encryptShort": func() { encryptShort(data, data, 5, keys, 1, 0) },
		"decryptShort": func() { decryptShort(data, data, 5, keys, 1, 0) },
	}
	kernels := map[string]kernel{
		"aesni":   {encryptUnitsAESNI, decryptUnitsAESNI},
		"vaes":    {encryptUnitsVAES, decryptUnitsVAES},
		"vaes512": {encryptUnitsVAES512, decryptUnitsVAES512},
	}
	for _, impl := range assembly() {
		k := kernels[impl.name]
		calls[impl.name+" encrypt"] = func() { k.encrypt(data, data, 50, keys, 1, 0) }
		calls[impl.name+" decrypt"] = func() { k.decrypt(data, data, 50, keys, 1, 0) }
	}
	expandKeys(keys, &testKey[0])
	tweaks := encryptedTweaks(t, 1, 60)
	for name, call := range calls {
		checkRegisters(t, name, call)
		var stack [residue.StackSize]byte
		residue.Stack(&stack) // grows the stack before the call, if the stack must grow
		call()
		residue.Stack(&stack)
		for i, tweak := range tweaks {
			if bytes.Contains(stack[:], tweak) {
				t.Errorf("%s leaves the tweak of unit %d on the stack", name, 1+i)
			}
		}
	}
}

// checkRegisters fails if a register unused by Go holds anything after call. Go uses X0 and X1 to
// move memory, and X15 as zero.
func checkRegisters(t *testing.T, name string, call func()) {
	t.Helper()
	const used = 2
	if cpu.X86.HasAVX512F {
		var z [32][64]byte
		call()
		residue.Registers512(&z)
		for i := used; i < len(z); i++ {
			if z[i] != [64]byte{} {
				t.Errorf("%s leaves %x in Z%d", name, z[i], i)
			}
		}
	} else if cpu.X86.HasAVX {
		var y [16][32]byte
		call()
		residue.Registers256(&y)
		for i := used; i < len(y); i++ {
			if y[i] != [32]byte{} {
				t.Errorf("%s leaves %x in Y%d", name, y[i], i)
			}
		}
	}
}

// encryptedTweaks returns the encrypted tweaks of n units from first on.
func encryptedTweaks(t *testing.T, first uint64, n int) [][]byte {
	t.Helper()
	c, err := aes.NewCipher(testKey[32:])
	if err != nil {
		t.Fatal(err)
	}
	all := make([][]byte, n)
	for i := range all {
		all[i] = make([]byte, 16)
		binary.LittleEndian.PutUint64(all[i], first+uint64(i))
		c.Encrypt(all[i], all[i])
	}
	return all
}
