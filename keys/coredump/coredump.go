// Package coredump searches for key material where a core file would show key material. The
// package is for tests: a process's own memory holds keys, and no key may lie in a page dumped by
// the kernel.
package coredump

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

const pageSize = 4096

// Count returns how often the bytes of what occur in the writable memory of process pid, as far
// as a core file holds the memory: all mappings except those marked MADV_DONTDUMP. Count does not
// rely on coredump_filter and PR_SET_DUMPABLE, which prevent core files altogether. The caller
// must be allowed to trace the process.
func Count(pid int, what []byte) (int, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, err
	}
	p, err := open(pid)
	if err != nil {
		return 0, err
	}
	total := 0
	var from, to int64
	var writable bool
	for line := range strings.Lines(string(maps)) {
		var first, end int64
		var perms string
		if k, _ := fmt.Sscanf(line, "%x-%x %s", &first, &end, &perms); k == 3 {
			from, to, writable = first, end, strings.HasPrefix(perms, "rw")
			continue
		}
		flags, ok := strings.CutPrefix(line, "VmFlags:")
		if !ok || !writable || strings.Contains(flags+" ", " dd ") {
			continue
		}
		n, err := p.count(from, to, what)
		if err != nil {
			return 0, errors.Join(err, p.close())
		}
		total += n
	}
	return total, p.close()
}

// process is the memory of one.
type process struct{ mem, pagemap *os.File }

func open(pid int) (*process, error) {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, errors.Join(err, mem.Close())
	}
	return &process{mem, pagemap}, nil
}

func (p *process) close() error { return errors.Join(p.mem.Close(), p.pagemap.Close()) }

// count reads the resident pages of a mapping: under the race detector there are mappings of many
// gigabytes without pages.
func (p *process) count(from, to int64, what []byte) (n int, err error) {
	pages := (to - from) / pageSize
	entries := make([]byte, pages*8)
	if _, err := p.pagemap.ReadAt(entries, from/pageSize*8); err != nil && err != io.EOF {
		return 0, err
	}
	there := func(i int64) bool { return entries[8*i+7]&0xc0 != 0 } // present or swapped
	for i := int64(0); i < pages; {
		run := i
		for run < pages && there(run) {
			run++
		}
		if run == i {
			i++
			continue
		}
		b := make([]byte, (run-i)*pageSize)
		// A page that went away meanwhile is in no core file either.
		if _, err := p.mem.ReadAt(b, from+i*pageSize); err == nil {
			n += bytes.Count(b, what)
		}
		i = run
	}
	return n, nil
}
