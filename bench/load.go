package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
)

const (
	fileSize = "256m"
	seconds  = "1" // of one load on one system in one round
)

// load is one kind of I/O and the target of vmcryptfs for that kind.
type load struct {
	name   string
	rw, bs string
	depth  int
	target float64 // × gocryptfs; 0: none set
}

var loads = []load{
	{"4 KiB random read, q1", "randread", "4k", 1, 1.1},
	{"4 KiB random read, q16", "randread", "4k", 16, 3},
	{"4 KiB random write, q1", "randwrite", "4k", 1, 1.8},
	{"4 KiB random write, q16", "randwrite", "4k", 16, 3},
	{"1 MiB sequential read, q1", "read", "1m", 1, 1.3},
	{"1 MiB sequential read, q16", "read", "1m", 16, 1.3},
	{"1 MiB sequential write, q1", "write", "1m", 1, 1.3},
	{"1 MiB sequential write, q16", "write", "1m", 16, 1.3},
}

// run returns operations a second.
func (l load) run(file string) (float64, error) {
	out, err := fio(file, "--rw="+l.rw, "--bs="+l.bs, fmt.Sprintf("--iodepth=%d", l.depth),
		"--time_based", "--runtime="+seconds, "--norandommap", "--randrepeat=0")
	if err != nil {
		return 0, err
	}
	type side struct {
		IOPS float64 `json:"iops"`
	}
	var report struct {
		Jobs []struct {
			Read  side `json:"read"`
			Write side `json:"write"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return 0, fmt.Errorf("fio's report: %w", err)
	}
	var sum float64
	for _, j := range report.Jobs {
		sum += j.Read.IOPS + j.Write.IOPS
	}
	if sum == 0 {
		return 0, fmt.Errorf("fio reports no operation")
	}
	return sum, nil
}

// prepare writes the whole file, so every load meets data and no hole.
func prepare(file string) error {
	_, err := fio(file, "--rw=write", "--bs=1m", "--iodepth=4", "--refill_buffers", "--end_fsync=1")
	return err
}

func fio(file string, args ...string) ([]byte, error) {
	all := append([]string{"--name=bench", "--filename=" + file, "--size=" + fileSize,
		"--ioengine=io_uring", "--direct=1", "--numjobs=1", "--thread", "--output-format=json"}, args...)
	c := exec.Command("fio", all...)
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("fio %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out, nil
}

func heading() {
	fmt.Printf("%-28s %12s %12s %8s %8s\n", "fio, io_uring, O_DIRECT", "vmcryptfs", "gocryptfs", "ratio", "target")
}

// print prints one line: operations a second, or MiB a second for the large loads.
func (l load) print(r result) {
	ours, theirs, ratio := median(r.ours), median(r.theirs), median(r.ratio)
	verdict := "reached"
	if ratio < l.target {
		verdict = "NOT reached"
	}
	unit := "op/s"
	if l.bs == "1m" {
		unit = "MiB/s"
	}
	fmt.Printf("%-28s %7.0f %-5s%7.0f %-5s%6.2f × %6.1f ×  %s\n", l.name, ours, unit, theirs, unit, ratio, l.target, verdict)
}
