package libvirt

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmcryptfs/integration/mounttest"
	"vmcryptfs/integration/tally"
)

// pool is the name of the mount's storage pool.
const pool = "datastore"

func (h *host) makePool() {
	h.T.Helper()
	h.virsh("pool-define-as", pool, "dir", "--target", h.Mnt)
	h.virsh("pool-start", pool)
}

// makeVolume makes a volume of a guest's disk's size.
func (h *host) makeVolume(name, format string) {
	h.T.Helper()
	h.virsh("vol-create-as", pool, name, fmt.Sprint(diskSize), "--format", format)
}

// removeVolumes removes files left by block jobs and snapshots, as libvirt does.
func (h *host) removeVolumes(names ...string) {
	h.T.Helper()
	h.virsh("pool-refresh", pool)
	for _, name := range names {
		h.virsh("vol-delete", name, "--pool", pool)
	}
}

// TestVolumes: virsh makes, fills, copies, grows and empties volumes in a pool on the mount.
func TestVolumes(t *testing.T) {
	h := newHost(t)
	h.makePool()
	for _, format := range []string{"raw", "qcow2", "vmdk"} {
		h.makeVolume("new."+format, format)
	}
	h.wantFiles("vol-create-as", map[string]string{
		"new.raw": "encrypted root", "new.qcow2": "encrypted root", "new.vmdk": "encrypted root",
	})
	source := filepath.Join(t.TempDir(), "source.raw")
	content := []byte(strings.Repeat(marker, diskSize/len(marker)))
	if err := os.WriteFile(source, content, 0o600); err != nil {
		t.Fatal(err)
	}
	h.virsh("vol-upload", "new.raw", source, "--pool", pool)
	h.virsh("vol-clone", "new.raw", "clone.raw", "--pool", pool)
	h.virsh("vol-resize", "clone.raw", "16M", "--pool", pool)
	for _, name := range []string{"new.raw", "clone.raw"} {
		h.wantSecret(name, marker)
		back := filepath.Join(t.TempDir(), name)
		h.virsh("vol-download", name, back, "--pool", pool)
		mounttest.Tool(t, "cmp", "-n", fmt.Sprint(len(content)), source, back)
	}
	h.virsh("vol-wipe", "new.raw", "--pool", pool)
	h.removeVolumes("new.raw", "clone.raw", "new.qcow2", "new.vmdk")
	h.wantFiles("vol-delete", nil)
	tally.Add(t, "libvirt commands", 17)
}
