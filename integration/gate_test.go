package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"vmcryptfs/integration/mounttest"
)

// gate is a cluster's server as seen over the network: the gate passes connections on to the key
// server, or swallows the bytes (hung), or refuses connections (down).
type gate struct {
	t      testing.TB
	addr   string
	server string // address of the key server

	mu       sync.Mutex
	listener net.Listener // nil: down
	hung     bool
	conns    map[net.Conn]struct{} // both ends of every connection
	pumps    sync.WaitGroup
}

func newGate(t testing.TB, server string) *gate {
	t.Helper()
	g := &gate{t: t, addr: mounttest.FreeAddress(t), server: server, conns: map[net.Conn]struct{}{}}
	g.up()
	t.Cleanup(func() { g.down(); g.pumps.Wait() })
	return g
}

// up lets connections through, and ends hang and down.
func (g *gate) up() {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut() // hung connections stay dead, as after a server's restart
	g.hung = false
	if g.listener != nil {
		return
	}
	l, err := net.Listen("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	g.listener = l
	g.pumps.Go(func() { g.accept(l) })
}

// hang accepts connections still, and answers nothing on new and old ones.
func (g *gate) hang() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hung = true
}

// down refuses connections and ends existing ones.
func (g *gate) down() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil {
		_ = g.listener.Close()
		g.listener = nil
	}
	g.cut()
}

func (g *gate) cut() {
	for c := range g.conns {
		_ = c.Close()
	}
	clear(g.conns)
}

func (g *gate) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		g.pass(c)
	}
}

// pass joins c with the key server.
func (g *gate) pass(c net.Conn) {
	s, err := net.Dial("tcp", g.server)
	if err != nil {
		_ = c.Close()
		return
	}
	g.mu.Lock()
	g.conns[c], g.conns[s] = struct{}{}, struct{}{}
	g.mu.Unlock()
	g.pumps.Go(func() { g.pump(s, c) })
	g.pumps.Go(func() { g.pump(c, s) })
}

// pump copies until an end is closed; bytes that come while the gate hangs are lost.
func (g *gate) pump(to, from net.Conn) {
	b := make([]byte, 16<<10)
	for {
		n, err := from.Read(b)
		g.mu.Lock()
		hung := g.hung
		g.mu.Unlock()
		if err == nil && !hung {
			_, err = to.Write(b[:n])
		}
		if err != nil {
			_, _ = to.Close(), from.Close()
			return
		}
	}
}

// cluster is a key server behind two gates: a provider with two servers.
type cluster struct {
	*mounttest.Server
	one, two *gate
	toml     string
}

func (c *cluster) Env() []string { return []string{"VMCRYPTFS_KMS=" + c.toml} }

func startCluster(t testing.TB) *cluster {
	t.Helper()
	s := mounttest.StartKMS(t)
	c := &cluster{Server: s, one: newGate(t, s.Addr), two: newGate(t, s.Addr), toml: filepath.Join(t.TempDir(), "kms.toml")}
	text := fmt.Sprintf("[provider.dev]\nservers = [%q, %q]\nca = %q\ncert = %q\nkey = %q\n", c.one.addr, c.two.addr,
		filepath.Join(s.Dir, "ca.pem"), filepath.Join(s.Dir, "client.pem"), filepath.Join(s.Dir, "client.key"))
	if err := os.WriteFile(c.toml, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

var _ mounttest.KMS = (*cluster)(nil)

// currentKEK is the identifier for new files in the datastore's settings.
func (d *datastore) currentKEK() string {
	d.T.Helper()
	text, err := os.ReadFile(filepath.Join(d.Backing, ".vmcryptfs", "datastore.toml"))
	if err != nil {
		d.T.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if id, ok := strings.CutPrefix(line, "kek = "); ok {
			return strings.Trim(id, "\"\n")
		}
	}
	d.T.Fatalf("no kek in the settings:\n%s", text)
	return ""
}
