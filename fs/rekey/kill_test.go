package rekey

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/integration/tally"
	"vmcryptfs/keys"
)

// Environment of the copy of the test binary to be killed.
const (
	killBacking = "REKEY_TEST_BACKING"
	killState   = "REKEY_TEST_STATE"
)

// runToBeKilled rekeys the whole datastore to k2 and tells of each file.
func runToBeKilled() error {
	store, err := datastore.NewHost(os.Getenv(killState)).Open(os.Getenv(killBacking), true)
	if err != nil {
		return err
	}
	defer store.Close()
	cache := keys.NewCache(slog.New(slog.DiscardHandler), newKMS("corp", "k1", "k2"))
	defer cache.Close()
	_, err = Run(context.Background(), Config{Store: store, Keys: cache, Label: label}, Request{Paths: []string{"."}, To: "k2"}, func(e Event) error {
		if e.Path == "" {
			return nil
		}
		_, err := fmt.Println(e.Path)
		return err
	})
	return err
}

// A process killed at any point of a rekey leaves every file whole, and the next process completes
// the rekey.
func TestKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	k1, k2 := s.kek(s.corp, "k1"), s.kek(s.corp, "k2")
	var rels []string
	for i := range 24 {
		rel := fmt.Sprintf("vm%d/disk-flat.vmdk", i)
		s.file(rel, k1)
		rels = append(rels, rel)
	}
	must(t, s.store.Close())
	for n := 0; n < len(rels); n += 5 { // killed after n files
		s.killAfter(n + 1)
		tally.Add(t, "kills", 1)
		for _, rel := range rels {
			dek, err := unwrap(s.slots(rel).Header, k1, k2)
			if err != nil {
				t.Errorf("killed after %d files: %s: %v", n, rel, err)
			}
			dek.Wipe()
		}
	}
	s.reopen()
	sum := s.run(Request{Paths: []string{"."}, To: "k2"})
	if !sum.Complete || sum.Files != int64(len(rels)) {
		t.Errorf("%+v", sum)
	}
	for _, rel := range rels {
		s.opens(rel, k2)
	}
	s.wantSettings("corp", "k2", 2)
}

// killAfter starts a rekey and kills the process after the report of n files.
func (s *site) killAfter(n int) {
	s.t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), killBacking+"="+s.backing, killState+"="+s.state)
	out, err := c.StdoutPipe()
	must(s.t, err)
	var problem strings.Builder
	c.Stderr = &problem
	must(s.t, c.Start())
	lines := bufio.NewScanner(out)
	for range n {
		if !lines.Scan() {
			break
		}
	}
	must(s.t, c.Process.Signal(unix.SIGKILL))
	c.Wait() // killed
	if problem.Len() > 0 {
		s.t.Errorf("the rekey to be killed: %s", problem.String())
	}
}
