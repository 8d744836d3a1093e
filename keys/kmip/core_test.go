package kmip_test

import (
	"bufio"
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

	"vmcryptfs/keys/coredump"
	"vmcryptfs/keys/kmip"
)

// childEnv has the test binary be a client: the kms.toml to use.
const childEnv = "VMCRYPTFS_TEST_CLIENT"

// client makes a key, fetches the key, and holds the key until standard input ends.
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
	got, _, err := p.Get(ctx, made.ID, nil)
	if err != nil {
		return err
	}
	defer got.Wipe()
	fmt.Println(made.ID)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// TestNoKeyInCore: no part of a key is in the memory of a client that a core file would hold,
// though two keys are held and the sessions are open.
func TestNoKeyInCore(t *testing.T) {
	t.Parallel()
	for _, b := range backends() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			config := b.start(t)
			id, pid := startClient(t, config)
			key := rawKey(t, config, id)
			// The search must find the server's address, to prove that the search works.
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

// startClient starts a client in a process of its own and returns the identifier of the key held.
func startClient(t *testing.T, c kmip.Config) (id string, pid int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kms.toml")
	overwrite(t, path, fmt.Sprintf("[provider.x]\nservers = [%q]\nca = %q\ncert = %q\nkey = %q\ntimeout = \"1m\"\n",
		c.Servers[0], c.CA, c.Cert, c.Key))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	cmd.Stderr = os.Stderr
	confine(t, cmd)
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

// rawKey returns a key's bytes as fetched by another client.
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

// search counts what in a process's memory, as far as a core file would hold that memory.
func search(t *testing.T, pid int, what []byte) int {
	t.Helper()
	n, err := coredump.Count(pid, what)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
