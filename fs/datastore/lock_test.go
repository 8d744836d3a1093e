package datastore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/otherfs"
)

// holdLock is the other process and holds the lock until standard input ends.
func holdLock(backing, state string) int {
	st, err := NewHost(state).Open(backing, true)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("held")
	io.Copy(io.Discard, os.Stdin)
	if err := st.Close(); err != nil {
		return 1
	}
	return 0
}

// TestLockConflict: a file system may report a taken lock by POSIX's other error.
func TestLockConflict(t *testing.T) {
	dir := t.TempDir()
	otherfs.Faulty(t, dir, otherfs.Faults{Conflict: unix.EACCES})
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	first, err := tryLock(root, unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(first)
	if _, err := tryLock(root, unix.O_RDWR); !errors.Is(err, ErrBusy) {
		t.Errorf("%v, want %v", err, ErrBusy)
	}
}

func TestLockOtherProcess(t *testing.T) {
	s := newSite(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "DATASTORE_TEST_HOLD="+s.backing, "DATASTORE_TEST_STATE="+s.host.state)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("other process says %q, %v", line, err)
	}
	_, err = s.host.Open(s.backing, true)
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "process "+strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("error %v, want ErrBusy with process %d", err, cmd.Process.Pid)
	}
	s.open(s.host) // a reading command
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	in.Close()
	st, err := s.host.Open(s.backing, true)
	if err != nil {
		t.Fatalf("after kill -9 of the holder: %v", err)
	}
	st.Close()
}

func TestLockExcludes(t *testing.T) {
	s := newSite(t)
	st, err := s.host.Open(s.backing, true)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if _, err := s.host.Open(s.backing, true); !errors.Is(err, ErrBusy) {
		t.Errorf("second exclusive open: %v, want ErrBusy", err)
	}
	if err := s.open(s.host).Change(s.settings("k1"), s.kek("k1")); !errors.Is(err, ErrBusy) {
		t.Errorf("change by another: %v, want ErrBusy", err)
	}
	if err := st.Change(s.settings("k1"), s.kek("k1")); err != nil {
		t.Errorf("change by the holder: %v", err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := s.host.Open(s.backing, true)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	again.Close()
}

// The content of the lock file is BACKING's word: shown escaped, or not at all.
func TestHolderIsEscaped(t *testing.T) {
	s := newSite(t)
	st, err := s.host.Open(s.backing, true)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for content, want := range map[string]string{
		"42 kvm1\n":              `(process 42 on host "kvm1")`,
		"42 a\x1b[2J\nforged\n":  `(process 42 on host "a\x1b[2J\nforged")`,
		"":                       "",
		"no pid\n":               "",
		"-1 kvm1\n":              "",
		strings.Repeat("9", 300): "",
	} {
		if err := os.WriteFile(s.path(lockName), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := s.host.Open(s.backing, true)
		if !errors.Is(err, ErrBusy) || !strings.HasSuffix(err.Error(), strings.TrimSpace(ErrBusy.Error()+" "+want)) {
			t.Errorf("lock file %q: %v, want the end %q", content, err, want)
		}
	}
}

// A BACKING mounted read-only: a former datastore is locked as any other, and without a lock file
// there is nothing to exclude.
func TestLockReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	for _, removed := range []bool{false, true} {
		t.Run(fmt.Sprint("lock file removed ", removed), func(t *testing.T) {
			s := &site{t: t, backing: t.TempDir(), host: newHost(t), kms: &kms{name: "corp", keys: map[string]string{"k1": "one"}}}
			if err := unix.Mount("none", s.backing, "tmpfs", 0, "size=1m"); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(s.backing, unix.MNT_DETACH)
			s.init(s.settings("k1"))
			if removed {
				if err := os.Remove(s.path(lockName)); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Mount("none", s.backing, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			st, err := s.host.Open(s.backing, true)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			if _, err := s.host.Open(s.backing, true); errors.Is(err, ErrBusy) == removed {
				t.Errorf("second exclusive open: %v", err)
			}
			if err := st.Verify(t.Context(), s.cache()); err != nil {
				t.Error(err)
			}
			if err := st.Change(s.settings("k1"), s.kek("k1")); !errors.Is(err, unix.EROFS) {
				t.Errorf("change: %v, want EROFS", err)
			}
		})
	}
}
