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

// A daemon serves disks, so lack of memory is a danger. The kernel may free memory by writing to a
// disk, or swap to a disk; a daemon waiting for such memory while serving the disk waits for ever.
// A daemon killed for memory leaves all guests without disks. Where permitted (CAP_SYS_RESOURCE),
// the daemon therefore asks the kernel for two things: to free no memory for this process by I/O
// (PR_SET_IO_FLUSHER), and to kill other processes first.

// oomScore is the oom_score_adj of a daemon and a supervisor: nearly all other processes are
// killed first. A leaking daemon is still killed before the host stands still (-1000 would mean
// never).
const oomScore = -900

// oomFile is the kernel's file of the oom_score_adj of this process.
const oomFile = "/proc/self/oom_score_adj"

// protectProcess protects this process as far as permitted. protectProcess runs before
// holdToQuotas. Later threads and children inherit the protection.
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

// setIOFlusher sets PR_SET_IO_FLUSHER in each thread, since the kernel keeps the flag by thread.
func setIOFlusher() error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("PR_SET_IO_FLUSHER: %w", errno)
	}
	return nil
}

// lowerOOMScore sets oomScore, unless somebody has set another score (OOMScoreAdjust= of systemd).
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

// protection gives the current protection of this process.
func (d *daemon) protection() admin.Protection {
	p := d.protected
	if score, err := oomScoreNow(); err == nil {
		p.OOMScore = score
	}
	return p
}
