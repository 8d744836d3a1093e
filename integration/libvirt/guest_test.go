package libvirt

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"vmcryptfs/integration/mounttest"
)

// The guest is a boot sector that writes itself to its disk, 18 times a second: the n-th time
// with n inside, to sector firstSector + n mod sectors. So the disk shows how far the guest came,
// and whether every earlier write is there.
const (
	sectorSize  = 512
	firstSector = 2048
	sectors     = 1024
	atMarker    = 0x100
	atCounter   = 0x1a0
	atRequest   = 0x1a8
	loadedAt    = 0x7c00
	wroteOne    = '!' // said to the port of a debug console, if there is one

	marker = "GUEST-SECRET: a sector that a guest wrote"
)

// bootSector is real-mode code, written through the BIOS (int 0x13, extended write).
func bootSector() []byte {
	b := make([]byte, sectorSize)
	at := func(offset int) []byte { return binary.LittleEndian.AppendUint16(nil, uint16(loadedAt+offset)) }
	code := slabs(
		[]byte{0x31, 0xc0},       // xor ax, ax
		[]byte{0x8e, 0xd8},       // mov ds, ax
		[]byte{0x8e, 0xd0},       // mov ss, ax
		[]byte{0xbc, 0x00, 0x7c}, // mov sp, 0x7c00
		[]byte{0xfb},             // sti
	)
	again := len(code)
	code = slabs(code,
		[]byte{0x66, 0xa1}, at(atCounter), // mov eax, [counter]
		[]byte{0x66, 0x25}, dword(sectors-1), // and eax, sectors - 1
		[]byte{0x66, 0x05}, dword(firstSector), // add eax, firstSector
		[]byte{0x66, 0xa3}, at(atRequest+8), // mov [request.lba], eax
		[]byte{0xbe}, at(atRequest), // mov si, request
		[]byte{0xb8, 0x00, 0x43},                // mov ax, 0x4300
		[]byte{0xb2, 0x80},                      // mov dl, 0x80: the first disk
		[]byte{0xcd, 0x13},                      // int 0x13
		[]byte{0x72, 0x09},                      // jc +9: the same sector once more
		[]byte{0xb0, wroteOne, 0xe6, 0xe9},      // mov al, wroteOne; out 0xe9, al
		[]byte{0x66, 0xff, 0x06}, at(atCounter), // inc dword [counter]
		[]byte{0xf4}, // hlt: until the timer's next tick
	)
	code = append(code, 0xeb, byte(again-len(code)-2)) // jmp again
	copy(b, code)
	copy(b[atMarker:], marker)
	// struct request: size, sectors, buffer (offset, segment), LBA.
	copy(b[atRequest:], []byte{16, 0, 1, 0, loadedAt & 0xff, loadedAt >> 8})
	b[510], b[511] = 0x55, 0xaa
	return b
}

// sector returns the guest's n-th sector.
func sector(n uint32) []byte {
	b := bootSector()
	binary.LittleEndian.PutUint32(b[atCounter:], n)
	binary.LittleEndian.PutUint64(b[atRequest+8:], firstSector+uint64(n%sectors))
	return b
}

func dword(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }

func slabs(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// written reads a disk without writers, through QEMU's driver of its format, and returns how many
// sectors the guest wrote. Each of the last ones must be there.
func written(t testing.TB, format, disk string) uint32 {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "disk.raw")
	// -U: a paused guest's QEMU holds its locks.
	mounttest.Tool(t, "qemu-img", "convert", "-U", "-f", format, "-O", "raw", disk, raw)
	content, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	area := content[firstSector*sectorSize:][:sectors*sectorSize]
	var count uint32
	for i := range sectors {
		s := area[i*sectorSize:][:sectorSize]
		if n := binary.LittleEndian.Uint32(s[atCounter:]); bytes.Equal(s, sector(n)) {
			count = max(count, n+1)
		}
	}
	for n := count - min(count, sectors); n < count; n++ {
		if !bytes.Equal(area[n%sectors*sectorSize:][:sectorSize], sector(n)) {
			t.Errorf("%s: the guest wrote %d sectors, and number %d is lost", filepath.Base(disk), count, n)
		}
	}
	return count
}
