package exact

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"vmcryptfs/integration/mounttest"
)

// childEnv gives a copy of this test binary its role, as a process of its own: locks belong to
// processes, and a fault ends a process.
const childEnv = "VMCRYPTFS_EXACT_CHILD"

// child is such a process, or a tool. A copy answers each line of orders with one line.
type child struct {
	t       *testing.T
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan string // closed at the process's end
}

// startChild starts a process with a role.
func startChild(t *testing.T, role string) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	return start(t, cmd)
}

// startTool starts a program that takes orders on standard input.
func startTool(t *testing.T, argv ...string) *child {
	t.Helper()
	return start(t, exec.Command(argv[0], argv[1:]...))
}

func start(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	c := &child{t: t, cmd: cmd, answers: make(chan string)}
	c.cmd.Stderr = t.Output()
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.answers)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.answers <- lines.Text()
		}
	}()
	t.Cleanup(c.kill)
	return c
}

// kill ends the process at once; idempotent.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	for range c.answers {
	}
	_ = c.cmd.Wait()
}

// tell gives an order and does not wait.
func (c *child) tell(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.in, format+"\n", args...); err != nil {
		c.t.Fatal(err)
	}
}

// ask gives an order and returns the answer.
func (c *child) ask(format string, args ...any) string {
	c.t.Helper()
	c.tell(format, args...)
	return c.answer()
}

func (c *child) answer() string {
	c.t.Helper()
	select {
	case a, ok := <-c.answers:
		if !ok {
			c.t.Fatal("the process has ended")
		}
		return a
	case <-time.After(mounttest.Patience):
		c.t.Fatalf("no answer in %v", mounttest.Patience)
		return ""
	}
}

// want checks the answer to an order.
func (c *child) want(want, format string, args ...any) {
	c.t.Helper()
	if got := c.ask(format, args...); got != want {
		c.t.Errorf("%s: %s, want %s", fmt.Sprintf(format, args...), got, want)
	}
}

// playChild answers orders until there are no more.
func playChild(obey func(order []string) string) int {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(obey(strings.Fields(lines.Text())))
	}
	return 0
}

// await reads answers until one contains text.
func (c *child) await(text string) {
	c.t.Helper()
	for !strings.Contains(c.answer(), text) {
	}
}
