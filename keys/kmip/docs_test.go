package kmip_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/keys/kmip"
)

// TestDocumentedSetup runs the worked example of docs/kms.md literally, except for the port, and
// uses the result.
func TestDocumentedSetup(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/kms.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, ok := strings.Cut(string(text), "## A worked example")
	example, _, end := strings.Cut(example, "\n## ")
	if !ok || !end {
		t.Fatal("docs/kms.md has no worked example")
	}
	var script strings.Builder
	blocks := strings.Split(example, "```sh\n")[1:]
	for _, block := range blocks {
		commands, _, ok := strings.Cut(block, "```")
		if !ok {
			t.Fatal("a block does not end")
		}
		script.WriteString(commands)
	}
	if len(blocks) != 3 {
		t.Fatalf("%d blocks of commands, want 3", len(blocks))
	}
	dir, address := t.TempDir(), mounttest.FreeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	cmd := exec.Command("bash", "-euc", strings.ReplaceAll(script.String(), "5696", port)+"\nwait\n")
	cmd.Dir = dir
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	confine(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		if t.Failed() {
			said, _ := os.ReadFile(output.Name())
			t.Logf("%s", said[max(0, len(said)-4000):])
		}
	})
	awaitListener(t, address, exited)
	awaitFile(t, filepath.Join(dir, "kms.toml"), "key ", exited)
	configs, err := kmip.LoadConfig(filepath.Join(dir, "kms.toml"))
	if err != nil {
		t.Fatal(err)
	}
	configs[0].Timeout = patience
	p := open(t, configs[0])
	kek := create(t, p)
	awaitKey(t, p, kek)
	if r := p.Check(t.Context(), nil)[0]; r.Err != nil {
		t.Errorf("check: %s: %v", r.Step, r.Err)
	}
	if got := p.Health()[0].Address; got != address {
		t.Errorf("health of %s, want %s", got, address)
	}
}
