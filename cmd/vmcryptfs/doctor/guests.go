package doctor

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The bootstrap cycle: a KMS runs in a guest, and the guest's disk lies in the datastore in need
// of the KMS. This host can find three things: the processes with open files of the datastore; the
// listener on the KMS's port on this host (user networking with a forwarded port); and the process
// with the MAC address of the KMS's IPv4 address on the command line (a bridge or tap). This host
// cannot find a guest on another host, a guest shut down, a guest behind a router or a forwarding
// helper (passt), a MAC address missing on the command line, and IPv6 neighbours.

// guest is a process with open files of a datastore.
type guest struct {
	pid     int
	name    string // of the command
	disk    string // one of the open files
	sockets []string
	command []byte // in lower case
}

func (g guest) String() string { return fmt.Sprintf("%s (pid %d) uses %s", g.name, g.pid, g.disk) }

// guestsOf finds the processes with an open file below one of dirs, except the process daemon.
// proc is the directory of a proc(5), the source of the descriptors.
func guestsOf(proc string, dirs []string, daemon int) []guest {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	var all []guest
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == daemon || pid == os.Getpid() {
			continue
		}
		if g, ok := readGuest(filepath.Join(proc, e.Name()), dirs); ok {
			g.pid = pid
			all = append(all, g)
		}
	}
	return all
}

// readGuest reads the process at dir. ok is false for an ended process and for one closed to this
// user.
func readGuest(dir string, dirs []string) (g guest, ok bool) {
	descriptors, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return guest{}, false
	}
	for _, d := range descriptors {
		target, err := os.Readlink(filepath.Join(dir, "fd", d.Name()))
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			g.sockets = append(g.sockets, strings.TrimSuffix(inode, "]"))
		}
		if slices.ContainsFunc(dirs, func(dir string) bool { return strings.HasPrefix(target, dir+"/") }) {
			g.disk = target
		}
	}
	if g.disk == "" {
		return guest{}, false
	}
	// An ending process has no name, and is reported without one.
	name, _ := os.ReadFile(filepath.Join(dir, "comm"))
	command, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	g.name, g.command = strings.TrimSpace(string(name)), bytes.ToLower(command)
	return g, true
}

// serves tells how the guest is the one at address and port, or nothing.
func (g guest) serves(proc string, address netip.Addr, port string, local []netip.Addr) (how string) {
	if slices.Contains(local, address) {
		for _, l := range listeners(proc) {
			if l.port == port && l.at(address) && slices.Contains(g.sockets, l.inode) {
				return "and listens on " + net.JoinHostPort(address.String(), port)
			}
		}
	}
	if mac := neighbour(proc, address); mac != "" && bytes.Contains(g.command, []byte(mac)) {
		return fmt.Sprintf("and has the MAC address %s of %s", mac, address)
	}
	return ""
}

// localAddresses gives the addresses of this host.
func localAddresses() (all []netip.Addr) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p.Addr().Unmap())
		}
	}
	return all
}

// listener is a listening TCP socket.
type listener struct {
	address netip.Addr
	port    string
	inode   string
}

// at reports whether the socket accepts connections to address.
func (l listener) at(address netip.Addr) bool {
	return l.address == address || l.address.IsUnspecified()
}

// listeners reads proc/net/tcp and tcp6 (proc_net_tcp(5)).
func listeners(proc string) (all []listener) {
	for _, name := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(filepath.Join(proc, "net", name))
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Scan() {
			if l, ok := parseListener(lines.Text()); ok {
				all = append(all, l)
			}
		}
	}
	return all
}

// parseListener reads one line: "sl local_address rem_address st … inode". Addresses are 32-bit
// words in the host's byte order, little-endian on our platforms.
func parseListener(line string) (listener, bool) {
	const listening = "0A"
	fields := strings.Fields(line)
	if len(fields) < 10 || fields[3] != listening {
		return listener{}, false
	}
	host, port, ok := strings.Cut(fields[1], ":")
	raw, errHost := hex.DecodeString(host)
	n, errPort := strconv.ParseUint(port, 16, 16)
	if !ok || errHost != nil || errPort != nil || len(raw)%4 != 0 {
		return listener{}, false
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	address, ok := netip.AddrFromSlice(raw)
	return listener{address.Unmap(), strconv.FormatUint(n, 10), fields[9]}, ok
}

// neighbour gives the MAC address of address, by proc/net/arp, or "" for an unknown address.
func neighbour(proc string, address netip.Addr) string {
	text, err := os.ReadFile(filepath.Join(proc, "net", "arp"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // IP address, HW type, flags, HW address, …
		if len(fields) < 4 || fields[0] != address.String() {
			continue
		}
		if mac := strings.ToLower(fields[3]); mac != "00:00:00:00:00:00" {
			return mac
		}
	}
	return ""
}
