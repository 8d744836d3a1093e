package tally

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m.Run, "losetup", "mount", "go")) }

// newReport runs scripts/tally over some commands, with its directory in one of the test's.
func newReport(t *testing.T, commands ...string) *exec.Cmd {
	t.Helper()
	script, err := filepath.Abs("../../scripts/tally")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(script, commands...)
	c.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	return c
}

// temporary is the directory of a report's own.
func temporary(report *exec.Cmd) string {
	_, dir, _ := strings.Cut(report.Env[len(report.Env)-1], "=")
	return dir
}

// wantNoFiles checks that a finished report has removed its files.
func wantNoFiles(t *testing.T, report *exec.Cmd) {
	t.Helper()
	if left, err := os.ReadDir(temporary(report)); err != nil || len(left) > 0 {
		t.Errorf("scripts/tally has left %v (%v)", left, err)
	}
}

// wantLines checks that a report has lines beginning as in want, and none beginning as in not.
func wantLines(t *testing.T, report string, want, not []string) {
	t.Helper()
	for _, line := range want {
		if !strings.Contains("\n"+report, "\n"+line) {
			t.Errorf("no line %q", line)
		}
	}
	for _, line := range not {
		if strings.Contains("\n"+report, "\n"+line) {
			t.Errorf("a line %q", line)
		}
	}
	if t.Failed() {
		t.Logf("scripts/tally:\n%s", report)
	}
}

// broken is a module whose tests fail in every way.
var broken = map[string]string{
	"go.mod":            "module broken\n\ngo 1.21\n",
	"good/x_test.go":    "package x\nimport \"testing\"\nfunc TestGood(t *testing.T) {}\n",
	"bad/x_test.go":     "package x\nimport \"testing\"\nfunc TestFine(t *testing.T) {}\nfunc TestBad(t *testing.T) { t.Error(1) }\nfunc TestWorse(t *testing.T) { t.Run(\"part\", func(t *testing.T) { t.Error(2) }) }\n",
	"panics/x_test.go":  "package x\nimport \"testing\"\nfunc TestPanics(t *testing.T) { panic(\"oh\") }\nfunc TestAfter(t *testing.T) {}\n",
	"late/x_test.go":    "package x\nimport (\"testing\"; \"time\")\nfunc TestHangs(t *testing.T) { time.Sleep(time.Hour) }\n",
	"ends/x_test.go":    "package x\nimport (\"testing\"; \"os\")\nfunc TestEnds(t *testing.T) { os.Exit(3) }\n",
	"unbuilt/x_test.go": "package x\nimport \"testing\"\nfunc TestNever(t *testing.T) { return 1 }\n",
}

// TestFailures: every failure is counted and named, later commands run, and go test's output is
// seen.
func TestFailures(t *testing.T) {
	dir := t.TempDir()
	for name, text := range broken {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	all := "cd " + dir + " && go test ./bad ./good ./panics ./ends ./unbuilt"
	late := "cd " + dir + " && go test -timeout 1s ./late"
	c := newReport(t, all, late, "cd "+dir+" && nosuchtool", `printf 'kills\t2\nboots\t1\nkills\t3\n' >>$VMCRYPTFS_TALLY; echo last`)
	out, err := c.CombinedOutput()
	if err == nil {
		t.Error("exit 0")
	}
	wantLines(t, string(out), []string{
		"last\n",
		"ok  \tbroken/good\t",
		"--- FAIL: TestBad (",
		"  boots                                 1",
		"  kills                                 5",
		"  failed: 4 tests, 5 packages\n",
		"  broken/bad: TestBad TestWorse\n",
		"  broken/panics: TestPanics (panic: oh",
		"  broken/ends\n",
		"  broken/unbuilt [build failed]",
		"  broken/late: TestHangs (panic: test timed out after 1s: the tests after it did not run)",
		"  failed command: " + all + " (exit 1)",
		"  failed command: " + late + " (exit 1)",
		"  did not run: cd " + dir + " && nosuchtool (exit 127)",
	}, []string{"  left behind"})
	wantNoFiles(t, c)
}

// TestAllWell: a run without failures says so and succeeds. A process that ends soon after its
// test is no leftover, nor is another run's process.
func TestAllWell(t *testing.T) {
	other := exec.Command("sleep", "1000")
	other.Env = append(os.Environ(), File+"=/tmp/vt.other/tally")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(other.Process.Kill(), other.Wait()) }()
	c := newReport(t, "echo one; cd $TMPDIR; sleep 2 &", "test $(stat -c %a $TMPDIR) = 1777")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Error(err)
	}
	wantLines(t, string(out), []string{"one", "  failed: 0 tests, 0 packages"}, []string{"  failed c", "  did not", "  left"})
	wantNoFiles(t, c)
}

// TestStopped: a run ended by a signal names the commands not run.
func TestStopped(t *testing.T) {
	for sig, name := range map[unix.Signal]string{unix.SIGINT: "SIGINT", unix.SIGTERM: "SIGTERM", unix.SIGHUP: "SIGHUP"} {
		t.Run(name, func(t *testing.T) {
			c := newReport(t, "echo begun; sleep 1000", "echo second")
			var stderr bytes.Buffer
			c.Stderr = &stderr
			pipe, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			// A shell cannot take up a signal ignored by nohup(1), while a child begins with the
			// default for a signal caught here.
			caught := make(chan os.Signal, 1)
			signal.Notify(caught, sig)
			defer signal.Stop(caught)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			stdout := bufio.NewReader(pipe)
			if line, err := stdout.ReadString('\n'); line != "begun\n" { // seen while the command runs
				t.Errorf("%q, %v", line, err)
			}
			if err := c.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(stdout)
			if err := c.Wait(); err == nil {
				t.Error("exit 0")
			}
			wantLines(t, string(rest)+stderr.String(), []string{
				"  did not run: echo begun; sleep 1000 (ended by " + name + ")",
				"  did not run: echo second",
			}, []string{"second", "  left behind", "  failed command"})
			wantNoFiles(t, c)
		})
	}
}
