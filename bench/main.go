// Command bench compares the data path of vmcryptfs with the data path of gocryptfs, in one run,
// on one machine. Each system has one encrypted file over tmpfs, written before the measurement.
// Both get the same fio loads, with io_uring and O_DIRECT, in short rounds that take turns: a
// slow moment of the machine hits both. The program prints the medians, the median of the rounds'
// ratios, and the targets of docs/performance.md. A missed target is printed and is no failure.
//
//	bench VMCRYPTFS DIR
//
// VMCRYPTFS is the program, DIR an empty directory on tmpfs. bench/run calls this command.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

const rounds = 5

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: bench VMCRYPTFS DIR (see bench/run)")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(program, dir string) (err error) {
	systems := []system{
		&vmcryptfs{program: program, place: place{filepath.Join(dir, "vmcryptfs")}},
		&gocryptfs{place: place{filepath.Join(dir, "gocryptfs")}},
	}
	for _, s := range systems {
		if err := s.mount(); err != nil {
			return fmt.Errorf("%s: %w", s.name(), err)
		}
		defer func() { err = errors.Join(err, s.unmount()) }()
		if err := prepare(s.file()); err != nil {
			return fmt.Errorf("%s: %w", s.name(), err)
		}
	}
	results := make([]result, len(loads))
	for range rounds {
		for i, load := range loads {
			ours, err := load.run(systems[0].file())
			if err != nil {
				return fmt.Errorf("%s on %s: %w", load.name, systems[0].name(), err)
			}
			theirs, err := load.run(systems[1].file())
			if err != nil {
				return fmt.Errorf("%s on %s: %w", load.name, systems[1].name(), err)
			}
			results[i].add(ours, theirs)
		}
	}
	heading()
	for l, load := range loads {
		load.print(results[l])
	}
	return nil
}

// result holds the figures of one load, round by round, in operations a second.
type result struct{ ours, theirs, ratio []float64 }

func (r *result) add(ours, theirs float64) {
	r.ours = append(r.ours, ours)
	r.theirs = append(r.theirs, theirs)
	r.ratio = append(r.ratio, ours/theirs)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
