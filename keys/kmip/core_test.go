package kmip_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ovh/kmip-go/kmipclient"

	"vmcryptfs/keys/kmip"
)

// childEnv has the test binary be a client: the kms.toml to use.
const childEnv = "VMCRYPTFS_TEST_CLIENT"

// client makes a key, gets it again, and holds it until its standard input ends.
func client(path string) error {
	ctx := context.Background()
	configs, err := kmip.LoadConfig(path)
	if err != nil {
		return err
	}
	p, err := kmip.Open(configs[0], slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer p.Close()
	made, err := p.Create(ctx, label())
	if err != nil {
		return err
	}
	defer made.Wipe()
	got, err := p.Get(ctx, made.ID)
	if err != nil {
		return err
	}
	defer got.Wipe()
	fmt.Println(made.ID)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// TestNoKeyInCore: of all memory of a client that a core file would hold, none has a
// part of the key, though two keys are held and the sessions are open.
func TestNoKeyInCore(t *testing.T) {
	t.Parallel()
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			config := b.start(t)
			id, pid := startClient(t, config)
			key := rawKey(t, config, id)
			// What must be found, so that the search is one: the server's address.
			if n := search(t, pid, []byte(config.Servers[0])); n == 0 {
				t.Error("the search does not find the server's address")
			}
			for at := 0; at < 32; at += 16 {
				if n := search(t, pid, key[at:at+16]); n != 0 {
					t.Errorf("bytes %d to %d of the key are in %d places that a core file would hold", at, at+15, n)
				}
			}
		})
	}
}

// startClient starts a client in a process of its own and gives the key it holds.
func startClient(t *testing.T, c kmip.Config) (id string, pid int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kms.toml")
	overwrite(t, path, fmt.Sprintf("[provider.x]\nservers = [%q]\nca = %q\ncert = %q\nkey = %q\ntimeout = \"1m\"\n",
		c.Servers[0], c.CA, c.Cert, c.Key))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path)
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
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error("client:", err)
		}
	})
	id, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(id), cmd.Process.Pid
}

// rawKey is a key's bytes as another client gets them.
func rawKey(t *testing.T, c kmip.Config, id string) []byte {
	t.Helper()
	other, err := kmipclient.DialContext(t.Context(), c.Servers[0], kmipclient.WithRootCAFile(c.CA), kmipclient.WithClientCertFiles(c.Cert, c.Key))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	got, err := other.Get(id).ExecContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key, err := got.SymmetricKey()
	if err != nil || len(key) != 32 {
		t.Fatalf("a key of %d bytes, %v", len(key), err)
	}
	return key
}

// search counts what in the writable memory of a process that the kernel dumps.
func search(t *testing.T, pid int, what []byte) (n int) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t}
	for name, file := range map[string]**os.File{"mem": &p.mem, "pagemap": &p.pagemap} {
		if *file, err = os.Open(fmt.Sprintf("/proc/%d/%s", pid, name)); err != nil {
			t.Fatal(err)
		}
		defer (*file).Close()
	}
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
		if ok && writable && !strings.Contains(flags+" ", " dd ") {
			n += p.count(from, to, what)
		}
	}
	return n
}

// A process is the memory of one.
type process struct {
	t            *testing.T
	mem, pagemap *os.File
}

// count looks at the pages of a mapping that are there: under the race detector there
// are mappings of many gigabytes that are not.
func (p *process) count(from, to int64, what []byte) (n int) {
	const page = 4096
	entries := make([]byte, (to-from)/page*8)
	if _, err := p.pagemap.ReadAt(entries, from/page*8); err != nil {
		p.t.Fatal(err)
	}
	there := func(i int64) bool { return entries[8*i+7]&0xc0 != 0 } // present or swapped
	for i := int64(0); i < (to-from)/page; {
		run := i
		for run < (to-from)/page && there(run) {
			run++
		}
		if run == i {
			i++
			continue
		}
		b := make([]byte, (run-i)*page)
		if _, err := p.mem.ReadAt(b, from+i*page); err == nil {
			n += bytes.Count(b, what)
		}
		i = run
	}
	return n
}
