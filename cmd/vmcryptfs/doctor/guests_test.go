package doctor

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// fakeProc is a proc(5) with two processes, both with open files of /vm.
func fakeProc(t *testing.T) string {
	t.Helper()
	proc := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	process := func(pid int, name, command string, links ...string) {
		write(fmt.Sprintf("%d/comm", pid), name+"\n")
		write(fmt.Sprintf("%d/cmdline", pid), command)
		write(fmt.Sprintf("%d/fd/.made", pid), "")
		for n, l := range links {
			if err := os.Symlink(l, filepath.Join(proc, strconv.Itoa(pid), "fd", strconv.Itoa(n))); err != nil {
				t.Fatal(err)
			}
		}
	}
	process(10, "qemu-system-x86", "qemu\x00-netdev\x00user,hostfwd=tcp::5696-:5696", "/vm/kms.qcow2", "socket:[111]")
	process(11, "qemu-system-x86", "qemu\x00-device\x00virtio-net,mac=52:54:00:AA:BB:CC", "/dev/null", "/vm/other/kms2.raw", "socket:[222]")
	process(12, "sshd", "sshd", "/vmx/file", "socket:[333]")
	process(13, "vmcryptfs", "vmcryptfs", "/vm/kms.qcow2")
	write("self-is-no-pid", "")
	write("net/tcp", `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1640 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0
   1: 0100007F:1641 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0
   2: 0100007F:1642 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 111 1 0
   3: nonsense
`)
	write("net/tcp6", `  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:1643 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0
`)
	write("net/arp", `IP address       HW type     Flags       HW address            Mask     Device
192.0.2.7        0x1         0x2         52:54:00:aa:bb:cc     *        br0
192.0.2.8        0x1         0x2         52:54:00:dd:ee:ff     *        br0
192.0.2.9        0x1         0x0         00:00:00:00:00:00     *        br0
`)
	return proc
}

func TestGuests(t *testing.T) {
	t.Parallel()
	proc := fakeProc(t)
	guests := guestsOf(proc, []string{"/backing", "/vm"}, 13)
	if len(guests) != 2 || guests[0].String() != "qemu-system-x86 (pid 10) uses /vm/kms.qcow2" || guests[1].disk != "/vm/other/kms2.raw" {
		t.Fatalf("guests %v", guests)
	}
	local := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::1")}
	for _, c := range []struct {
		address, port string
		guest         int // index of the serving guest; -1: none
	}{
		{"192.0.2.1", "5696", 0}, // 0.0.0.0
		{"127.0.0.1", "5696", 0},
		{"127.0.0.1", "5697", 1},
		{"192.0.2.1", "5697", -1}, // listens on loopback alone
		{"127.0.0.1", "5698", -1}, // is connected, does not listen
		{"::1", "5699", 0},
		{"198.51.100.1", "5696", -1}, // not an address of this host
		{"192.0.2.7", "5696", 1},     // by MAC address
		{"192.0.2.8", "5696", -1},
		{"192.0.2.9", "5696", -1},
	} {
		for i, g := range guests {
			how := g.serves(proc, netip.MustParseAddr(c.address), c.port, local)
			if (how != "") != (i == c.guest) {
				t.Errorf("guest %d serves %s port %s: %q", i, c.address, c.port, how)
			}
		}
	}
}

// In the kernel's own proc, the test process listens and has a file open.
func TestGuestsOfThisHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g, ok := readGuest("/proc/self", []string{dir})
	if !ok || g.disk != f.Name() {
		t.Fatalf("not found: %+v", g)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if how := g.serves("/proc", netip.MustParseAddr("127.0.0.1"), port, localAddresses()); how == "" {
		t.Error("the listening socket was not found")
	}
}
