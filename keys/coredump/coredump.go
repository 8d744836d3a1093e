// Package coredump looks for key material where a core file would show it. It is for
// tests: a process's own memory holds keys, and none of it may lie where the kernel dumps.
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

// Count tells how often what stands in the writable memory of process pid that a core
// file holds: all mappings but those marked MADV_DONTDUMP. coredump_filter and
// PR_SET_DUMPABLE, which keep core files from being written at all, are not counted on.
// The caller must be allowed to trace the process.
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

// count looks at the pages of a mapping that are there: under the race detector there
// are mappings of many gigabytes that are not.
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
