// Command narrow lists a directory as a C library of 32 bits without large-file support does:
// no offset may need more than 31 bits (EOVERFLOW). It goes back to some entries by their offsets
// and prints how many entries there are. Built for 64 bits it has the kernel show the auxiliary
// vector of a 32-bit program for it.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run(dir string) error {
	if bits.UintSize == 64 {
		if err := looksNarrow(); err != nil {
			return fmt.Errorf("change the auxiliary vector: %w", err)
		}
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	names, offs, err := list(fd)
	if err != nil {
		return err
	}
	for i := 0; i < len(names); i += max(1, len(names)/7) {
		if _, err := unix.Seek(fd, offs[i], unix.SEEK_SET); err != nil {
			return err
		}
		rest, again, err := list(fd)
		if err != nil || !slices.Equal(rest, names[i+1:]) || !slices.Equal(again, offs[i+1:]) {
			return fmt.Errorf("from after entry %d of %d: %d entries, %v", i, len(names), len(rest), err)
		}
	}
	fmt.Println(len(names), "entries")
	return nil
}

// list reads to the end.
func list(fd int) (names []string, offs []int64, err error) {
	buf := make([]byte, 8192)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			return names, offs, err
		}
		for b := buf[:n]; len(b) > 0; {
			off := int64(binary.NativeEndian.Uint64(b[8:]))
			if off > math.MaxInt32 || off < 0 {
				return nil, nil, fmt.Errorf("offset %#x: %w", off, unix.EOVERFLOW)
			}
			size := binary.NativeEndian.Uint16(b[16:])
			names, offs = append(names, unix.ByteSliceToString(b[19:size])), append(offs, off)
			b = b[size:]
		}
	}
}

// memoryMap is the kernel's struct prctl_mm_map: where the parts of this process lie. The addresses
// are those of fields 26 to 28 and 45 to 51 of /proc/PID/stat, and the break.
type memoryMap struct {
	startCode, endCode, startData, endData, startBreak, endBreak     uint64
	startStack, startArgs, endArgs, startEnvironment, endEnvironment uint64
	auxv                                                             *byte
	auxvSize                                                         uint32
	program                                                          int32 // -1: stays
}

// looksNarrow gives this process the auxiliary vector of a 32-bit one; for that it says the rest of
// its memory map as it is.
func looksNarrow() error {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	fields := strings.Fields(string(stat)) // no blank in this program's name
	field := func(i int) uint64 {
		x, parseErr := strconv.ParseUint(fields[i-1], 10, 64)
		err = errors.Join(err, parseErr)
		return x
	}
	end, _, _ := unix.Syscall(unix.SYS_BRK, 0, 0, 0)
	var v []byte
	for _, x := range []uint32{33, 0xf7f0_0000, 6, 4096, 3, 0x0804_8034, 4, 32, 5, 7, 0, 0} {
		v = binary.NativeEndian.AppendUint32(v, x)
	}
	m := memoryMap{
		startCode: field(26), endCode: field(27), startData: field(45), endData: field(46),
		startBreak: field(47), endBreak: uint64(end), startStack: field(28),
		startArgs: field(48), endArgs: field(49), startEnvironment: field(50), endEnvironment: field(51),
		auxv: &v[0], auxvSize: uint32(len(v)), program: -1,
	}
	if err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_MAP, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m), 0)
}
