package daemon

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/admin"
)

// A daemon serves disks: if it waits for memory that the kernel would free by writing to one of
// them, or swaps to one, both wait for ever; and if it is killed for memory all its guests are
// without disks. So where that is permitted (CAP_SYS_RESOURCE) it asks the kernel to free no
// memory for it by I/O (PR_SET_IO_FLUSHER), and to kill others first.

// oomScore is the oom_score_adj of a daemon and its supervisor: after nearly all others. One that
// leaks still is killed before a host without memory stands still (-1000 would be never).
const oomScore = -900

// oomFile is where the kernel has it.
const oomFile = "/proc/self/oom_score_adj"

// protectProcess protects this process as far as it may. It comes before holdToQuotas.
// Threads and children that begin later have the same from the start.
func protectProcess(log *slog.Logger) (p admin.Protection) {
	if err := setIOFlusher(); err != nil {
		log.Info("the kernel may free memory for this process by I/O to what it serves", "error", err)
	} else {
		p.IOFlusher = true
	}
	if err := lowerOOMScore(); err != nil {
		log.Info("this process may be killed for memory as any other", "error", err)
	}
	return p
}

// setIOFlusher sets it for each thread: the kernel has it by thread.
func setIOFlusher() error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("PR_SET_IO_FLUSHER: %w", errno)
	}
	return nil
}

// lowerOOMScore leaves a score as it is that somebody has set (OOMScoreAdjust= of systemd).
func lowerOOMScore() error {
	score, err := oomScoreNow()
	if err != nil || score != 0 {
		return err
	}
	return os.WriteFile(oomFile, strconv.AppendInt(nil, oomScore, 10), 0)
}

func oomScoreNow() (int, error) {
	b, err := os.ReadFile(oomFile)
	if err != nil {
		return 0, err
	}
	score, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", oomFile, err)
	}
	return score, nil
}

// protection is how this process is protected now.
func (d *daemon) protection() admin.Protection {
	p := d.protected
	if score, err := oomScoreNow(); err == nil {
		p.OOMScore = score
	}
	return p
}
