// Command bench compares the data path of vmcryptfs with that of gocryptfs, in one run, on
// one machine: one encrypted file each over tmpfs, written before it is measured, the same
// fio loads with io_uring and O_DIRECT, in rounds that take turns, so that a slow moment of
// the machine hits both. It prints medians, ratios and the targets of docs/performance.md.
// A target that is not reached is printed, not failed.
//
//	bench VMCRYPTFS DIR
//
// VMCRYPTFS is the program, DIR an empty directory on tmpfs. Called by bench/run.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

const rounds = 3

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
	results := make([][][]float64, len(loads)) // load, system, round → operations a second
	for range rounds {
		for l, load := range loads {
			if results[l] == nil {
				results[l] = make([][]float64, len(systems))
			}
			for i, s := range systems {
				rate, err := load.run(s.file())
				if err != nil {
					return fmt.Errorf("%s on %s: %w", load.name, s.name(), err)
				}
				results[l][i] = append(results[l][i], rate)
			}
		}
	}
	heading()
	for l, load := range loads {
		load.print(median(results[l][0]), median(results[l][1]))
	}
	return nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
