package vm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vmcryptfs/integration/tally"
)

// patience bounds whatever a guest is asked for: emulated, on busy cores.
const patience = 5 * time.Minute

// machine is one QEMU with a guest.
type machine struct {
	t      testing.TB
	cmd    *exec.Cmd
	input  io.Writer
	lines  chan string // the guest's console; closed when QEMU has ended
	end    error       // how QEMU ended; after lines is closed
	stderr bytes.Buffer
	qmp    *monitor
}

// boot starts a guest, whose disks /dev/vdb and so on are the drives.
func boot(t testing.TB, drives []drive, args ...string) *machine {
	t.Helper()
	tally.Add(t, "VM boots", 1)
	m := launch(t, drives, args...)
	if _, err := m.await(guestReady, patience); err != nil {
		t.Fatal(err)
	}
	return m
}

// launch is boot without the wait: for a guest from a saved state.
func launch(t testing.TB, drives []drive, args ...string) *machine {
	t.Helper()
	for _, d := range drives {
		args = append(args, "-drive", d.option(), "-device", "virtio-blk-pci,drive="+d.id)
	}
	accelerator, why := accelerator()
	t.Logf("guests run by %s (%v)", accelerator, why)
	m, err := start(accelerator, args...)
	if err != nil {
		t.Fatal(err)
	}
	m.t = t
	t.Cleanup(m.kill)
	return m
}

// guestReady is the guest's line on the console when ready for commands.
const guestReady = "guest: ready"

// guestOptions are QEMU's options for every guest: the machine, the console and the boot files.
func guestOptions() ([]string, error) {
	dir, err := guestDir()
	return []string{
		"-machine", "q35", "-cpu", "max", "-m", "256",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-kernel", filepath.Join(dir, "vmlinuz"), "-initrd", filepath.Join(dir, "initrd"),
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off",
		"-drive", "id=tools,if=none,format=raw,readonly=on,file=" + filepath.Join(dir, "tools.img"),
		"-device", "virtio-blk-pci,drive=tools",
	}, err
}

// start runs QEMU; the caller ends QEMU by kill.
func start(accelerator string, args ...string) (*machine, error) {
	options, err := guestOptions()
	if err != nil {
		return nil, err
	}
	qmp, far, err := newMonitor()
	if err != nil {
		return nil, err
	}
	c := exec.Command("qemu-system-x86_64", slices.Concat([]string{"-accel", accelerator}, options, []string{
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
	}, args)...)
	m := &machine{cmd: c, lines: make(chan string, 4096), qmp: qmp}
	c.Stderr = &m.stderr
	c.ExtraFiles = []*os.File{far} // fd 3
	output, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if m.input, err = c.StdinPipe(); err != nil {
		return nil, err
	}
	err = c.Start()
	_ = far.Close() // so the monitor sees QEMU's end
	if err != nil {
		return nil, err
	}
	go m.listen(output)
	if err := qmp.greet(); err != nil {
		m.kill()
		return nil, fmt.Errorf("%w\n%s", err, m.stderr.String())
	}
	return m, nil
}

// listen ends with QEMU.
func (m *machine) listen(output io.Reader) {
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		m.lines <- lines.Text()
	}
	m.end = m.cmd.Wait()
	close(m.lines)
}

// errSilent reports that the guest did not print the awaited line in time.
var errSilent = errors.New("not said")

// await returns the guest's output up to the line beginning with prefix.
func (m *machine) await(prefix string, within time.Duration) (said string, err error) {
	deadline := time.After(within)
	for {
		select {
		case line, ok := <-m.lines:
			said += line + "\n"
			switch {
			case !ok:
				return said, fmt.Errorf("QEMU has ended (%v) while %q was awaited:\n%s%s", m.end, prefix, said, m.stderr.String())
			case strings.HasPrefix(line, prefix):
				return said, nil
			}
		case <-deadline:
			return said, fmt.Errorf("%q: %w within %v:\n%s", prefix, errSilent, within, said)
		}
	}
}

// tell writes a line to the guest's console.
func (m *machine) tell(line string) {
	m.t.Helper()
	if _, err := io.WriteString(m.input, line+"\n"); err != nil {
		m.t.Fatalf("%s: %v", line, err)
	}
}

// begin starts a shell command in the guest; finish waits for the command, which must succeed.
func (m *machine) begin(command string) {
	m.t.Helper()
	m.tell(command)
	if _, err := m.await("guest: begins", patience); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) finish() string {
	m.t.Helper()
	said, err := m.await("guest: exit ", patience)
	if err != nil {
		m.t.Fatal(err)
	}
	if !strings.HasSuffix(said, "guest: exit 0\n") {
		m.t.Fatalf("in the guest:\n%s", said)
	}
	return strings.TrimSuffix(said, "guest: exit 0\n")
}

// run is begin and finish for each command; run returns the last one's output.
func (m *machine) run(commands ...string) (said string) {
	m.t.Helper()
	for _, command := range commands {
		m.begin(command)
		said = m.finish()
	}
	return said
}

// powerOff is the guest's own.
func (m *machine) powerOff() {
	m.t.Helper()
	m.begin("sync; poweroff -f")
	m.awaitEnd()
}

// awaitEnd waits for QEMU, which must end well.
func (m *machine) awaitEnd() {
	m.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case _, more := <-m.lines:
			if more {
				continue
			}
			if m.end != nil {
				m.t.Fatalf("QEMU: %v\n%s", m.end, m.stderr.String())
			}
			return
		case <-deadline:
			m.t.Fatalf("QEMU still runs after %v", patience)
		}
	}
}

// kill ends a running QEMU at once.
func (m *machine) kill() {
	_ = m.cmd.Process.Kill()
	for range m.lines { // until QEMU is gone
	}
	m.qmp.close()
}
