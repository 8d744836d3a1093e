package kmip_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/keys/kmip"
)

// PyKMIP (Debian's python3-pykmip) is a server with a stack without a line in common with ours.

// A pykmip is a running PyKMIP server.
type pykmip struct {
	address string
	process *os.Process
}

// startPyKMIP starts one PyKMIP server with a CA and a database of its own.
func startPyKMIP(t *testing.T) kmip.Config {
	p := newPKI(t)
	server := launchPyKMIP(t, p, filepath.Join(t.TempDir(), "pykmip.db"))
	return p.config(t, server.address)
}

// config returns a provider of these servers with a client certificate of the CA.
func (p *pki) config(t testing.TB, servers ...string) kmip.Config {
	t.Helper()
	cert, key := p.issue(t, "client", leaf{client: true})
	return kmip.Config{Name: "test", Servers: servers, CA: p.ca, Cert: cert, Key: key, Timeout: patience}
}

// launchPyKMIP starts a server over a database shared with other servers, and returns when the
// server listens.
func launchPyKMIP(t *testing.T, p *pki, database string) *pykmip {
	t.Helper()
	const program = "/usr/bin/pykmip-server"
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: install Debian's python3-pykmip, as make test does", err)
	}
	dir := t.TempDir()
	address := mounttest.FreeAddress(t)
	host, port, _ := net.SplitHostPort(address)
	cert, key := p.issue(t, "pykmip", leaf{})
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "server.conf")
	text := fmt.Sprintf("[server]\nhostname=%s\nport=%s\ncertificate_path=%s\nkey_path=%s\nca_path=%s\n"+
		"auth_suite=TLS1.2\npolicy_path=%s\nlogging_level=DEBUG\ndatabase_path=%s\n",
		host, port, cert, key, p.ca, policies, database)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "server.log")
	cmd := exec.Command("/usr/bin/python3", "-W", "ignore", program, "-f", config, "-l", log)
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = output, output
	confine(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // the server's own shutdown waits 10 s for each session
		<-exited
		output.Close()
		if t.Failed() {
			for _, path := range []string{output.Name(), log} {
				said, _ := os.ReadFile(path)
				t.Logf("%s:\n%s", path, said[max(0, len(said)-4000):])
			}
		}
	})
	awaitListener(t, address, exited)
	return &pykmip{address, cmd.Process}
}

// awaitListener returns when a server accepts connections.
func awaitListener(t *testing.T, address string, exited <-chan struct{}) {
	t.Helper()
	await(t, address+" to listen", exited, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// awaitFile returns when a file contains text.
func awaitFile(t *testing.T, path, text string, exited <-chan struct{}) {
	t.Helper()
	await(t, path, exited, func() bool {
		content, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(content), text)
	})
}

// await asks until something of another process is there.
func await(t *testing.T, what string, exited <-chan struct{}, there func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(60 * time.Second)
	for !there() {
		select {
		case <-tick.C:
		case <-exited:
			t.Fatalf("waiting for %s: the process ended", what)
		case <-late:
			t.Fatalf("waiting for %s: a minute passed", what)
		}
	}
}
