package libvirt

import (
	"bytes"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/integration/mounttest"
)

const (
	pidFile   = "/run/libvirt/libvirtd.pid"
	daemonLog = "/var/log/libvirt/libvirtd.log"

	qemuUser = "libvirt-qemu" // QEMU's user under Debian's libvirt

	// Without systemd nobody runs virtlogd, or delegates control groups.
	qemuConf = "stdio_handler = \"file\"\ncgroup_controllers = []\n"
)

// host is Debian's libvirtd with its defaults, and a datastore for its guests.
type host struct {
	*mounttest.Datastore
	qemu user.User // libvirt's user for QEMU
}

// newHost mounts a datastore and starts a libvirtd that sees and changes nothing of the host's
// own.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{Datastore: mounttest.NewUnmounted(t, mounttest.Embedded{Dir: filepath.Join(t.TempDir(), "devkms")})}
	// BACKING lies where root alone comes; the mount where QEMU's user does, too.
	h.Mnt = filepath.Join("/run", t.Name())
	qemu, err := user.Lookup(qemuUser)
	if err != nil {
		t.Fatal(err)
	}
	h.qemu = *qemu
	for _, dir := range []string{"/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/log/libvirt"} {
		emptyDirectory(t, dir)
	}
	if err := os.WriteFile("/etc/libvirt/qemu.conf", []byte(qemuConf), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.Mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	h.Mount()
	h.startDaemon()
	return h
}

// emptyDirectory puts one over dir until the test ends.
func emptyDirectory(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatalf("mount tmpfs on %s: %v", dir, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

func (h *host) startDaemon() {
	h.T.Helper()
	if r := mounttest.Run(h.T, nil, "libvirtd", "-d", "--pid-file", pidFile); r.Code != 0 {
		h.T.Fatal(r)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		h.T.Fatal(err)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil {
		h.T.Fatal(err)
	}
	h.T.Cleanup(func() {
		if h.T.Failed() {
			log, err := os.ReadFile(daemonLog)
			h.T.Logf("libvirtd's log (%v):\n%s", err, log)
		}
		if err := unix.Kill(pid, unix.SIGTERM); err != nil {
			h.T.Error(err)
		}
		if err := mounttest.AwaitExit(pid); err != nil {
			h.T.Error(err)
		}
	})
}

// virsh runs a command of virsh, which must succeed.
func (h *host) virsh(args ...string) string {
	h.T.Helper()
	return mounttest.Tool(h.T, append([]string{"virsh", "--quiet"}, args...)...)
}

// wantFiles checks the form and owner of everything in the mount, and that nothing else exists:
// name → "form owner".
func (h *host) wantFiles(when string, want map[string]string) {
	h.T.Helper()
	entries, err := os.ReadDir(h.Mnt)
	if err != nil {
		h.T.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range entries {
		var st unix.Stat_t
		if err := unix.Stat(h.Path(e.Name()), &st); err != nil {
			h.T.Fatal(err)
		}
		got[e.Name()] = h.Form(e.Name()) + " " + h.owner(st.Uid)
	}
	for name, is := range got {
		if is != want[name] {
			h.T.Errorf("%s: %s is %q, want %q", when, name, is, want[name])
		}
	}
	for name, is := range want {
		if got[name] == "" {
			h.T.Errorf("%s: no %s, want one that is %q", when, name, is)
		}
	}
}

func (h *host) owner(uid uint32) string {
	switch strconv.Itoa(int(uid)) {
	case "0":
		return "root"
	case h.qemu.Uid:
		return "qemu"
	}
	return strconv.Itoa(int(uid))
}

// wantSecret checks that a text is in a file of the mount, and nowhere in BACKING.
func (h *host) wantSecret(name, text string) {
	h.T.Helper()
	if !strings.Contains(string(h.Read(name)), text) {
		h.T.Errorf("%s does not hold %q", name, text)
	}
	entries, err := os.ReadDir(h.Backing)
	if err != nil {
		h.T.Fatal(err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		raw, err := os.ReadFile(h.Below(e.Name()))
		if err != nil {
			h.T.Fatal(err)
		}
		if bytes.Contains(raw, []byte(text)) {
			h.T.Errorf("BACKING has %q in clear, in %s", text, e.Name())
		}
	}
}
