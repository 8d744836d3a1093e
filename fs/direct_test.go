package fs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// sectorDisk makes a file system on a disk with sectors of so many bytes, mounts it and
// returns where.
func sectorDisk(t *testing.T, sector int, mkfs ...string) string {
	t.Helper()
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 400<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	device := run(t, "losetup", "--find", "--show", "--sector-size", fmt.Sprint(sector), image)
	t.Cleanup(func() { run(t, "losetup", "--detach", device) })
	run(t, mkfs[0], append(mkfs[1:], device)...)
	run(t, "mount", device, at)
	t.Cleanup(func() { run(t, "umount", at) })
	return at
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

type disk struct {
	name   string
	sector int
	mkfs   []string
}

// disks are BACKINGs with direct I/O. XFS is one of them where the kernel has it.
func disks(t *testing.T) []disk {
	all := []disk{
		{"ext4, 512-byte sectors", 512, []string{"mkfs.ext4", "-q"}},
		{"ext4, 4096-byte sectors", 4096, []string{"mkfs.ext4", "-q"}},
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(known), "\txfs\n") {
		all = append(all, disk{"XFS, 512-byte sectors", 512, []string{"mkfs.xfs", "-q"}})
	}
	return all
}

// cached is how many pages BACKING keeps of the data of a file.
func (r *rig) cached(name string) uint64 {
	r.t.Helper()
	f, err := os.Open(r.under(name))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	var st unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{Off: layout.DataOffset}, &st, 0); err != nil {
		r.t.Fatal(err)
	}
	return st.Cache
}

// uncache syncs a file of BACKING, and drops the file's pages from BACKING's page cache.
func (r *rig) uncache(name string) {
	r.t.Helper()
	f, err := os.Open(r.under(name))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		r.t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		r.t.Fatal(err)
	}
	if pages := r.cached(name); pages > 0 {
		r.t.Fatalf("%d pages of %s are cached still: nothing is tested", pages, name)
	}
}

// permitsBuffers is the alignment in bytes that BACKING asks of direct requests, as the kernel
// says; 0: BACKING has no direct I/O.
func permitsBuffers(t *testing.T, path string) uint32 {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_DIOALIGN, &st); err != nil {
		t.Fatal(err)
	}
	return st.Dio_offset_align
}

// TestDirectAroundPageCache: requests permitted by BACKING go around its page cache, and the others
// arrive too.
func TestDirectAroundPageCache(t *testing.T) {
	for _, disk := range disks(t) {
		t.Run(disk.name, func(t *testing.T) {
			r := newRigAt(t, sectorDisk(t, disk.sector, disk.mkfs...), nil)
			r.write("a.qcow2", strings.Repeat("x", 1<<20))
			r.idle()
			align := permitsBuffers(t, r.under("a.qcow2"))
			r.uncache("a.qcow2")
			f := r.open("a.qcow2", os.O_RDWR|unix.O_DIRECT)
			p := aligned(64 << 10)
			copy(p, bytes.Repeat([]byte("new "), len(p)/4))
			if _, err := f.WriteAt(p, 128<<10); err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadAt(p, 64<<10); err != nil || p[0] != 'x' {
				t.Errorf("read %.10q, %v", p, err)
			}
			if pages := r.cached("a.qcow2"); align > 0 && pages > 0 {
				t.Errorf("BACKING, which permitsBuffers direct requests of %d bytes, caches %d pages", align, pages)
			}
			if _, err := f.WriteAt(p[:512], 1536); err != nil {
				t.Fatal(err)
			}
			if pages := r.cached("a.qcow2"); pages == 0 && align != 512 {
				t.Errorf("a request of 512 bytes goes around the page cache of a BACKING that permitsBuffers %d", align)
			}
			f.Close()
			r.idle()
			want := strings.Repeat("x", 1536) + strings.Repeat("x", 512) + strings.Repeat("x", 126<<10) +
				strings.Repeat("new ", 16<<10) + strings.Repeat("x", 1<<20-192<<10)
			r.wantRead("a.qcow2", want)
			r.unmount()
		})
	}
}

// TestDirectMixed: direct and buffered callers of one file, whose requests share pages and blocks
// of BACKING, see each other's bytes and lose none.
func TestDirectMixed(t *testing.T) {
	const workers, rounds, unit, units = 4, 150, 512, 64
	for _, disk := range disks(t) {
		t.Run(disk.name, func(t *testing.T) {
			r := newRigAt(t, sectorDisk(t, disk.sector, disk.mkfs...), nil)
			for _, name := range []string{"a.qcow2", "b.log"} {
				r.write(name, strings.Repeat("\x00", workers*units*unit))
				want := make([]byte, workers*units*unit)
				var all sync.WaitGroup
				for w := range workers {
					all.Go(func() { mixed(t, r.path(name), want, w, workers, rounds) })
				}
				all.Wait()
				r.idle()
				r.wantRead(name, string(want))
				r.unmount()
				r.uncache(name)
				r.mount()
				r.wantRead(name, string(want))
			}
			r.unmount()
		})
	}
}

// mixed writes and reads the units w, w+workers, … of a file, direct if w is even: the units of
// each worker lie between those of the others.
func mixed(t *testing.T, path string, want []byte, w, workers, rounds int) {
	flags := os.O_RDWR
	if w%2 == 0 {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	random := rand.New(rand.NewPCG(1, uint64(w)))
	p := aligned(512)
	for range rounds {
		off := int64(random.IntN(len(want)/512/workers)*workers+w) * 512
		if _, err := f.ReadAt(p, off); err != nil || !bytes.Equal(p, want[off:off+512]) {
			t.Errorf("worker %d: unit at %d is not as written, %v", w, off, err)
			return
		}
		for i := range p {
			p[i] = byte(random.Uint32())
		}
		copy(want[off:], p)
		if _, err := f.WriteAt(p, off); err != nil {
			t.Error(err)
			return
		}
	}
}

// TestDirectIsCounted: as long as one caller has the file open O_DIRECT, and no longer.
func TestDirectIsCounted(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.vmdk", descriptor)
	r.idle()
	open := func(flags int) *os.File {
		f, err := os.OpenFile(r.path("a.vmdk"), flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	direct, other := open(os.O_RDONLY|unix.O_DIRECT), open(os.O_RDWR)
	defer other.Close()
	n := r.fs.handles.get(anyHandle(t, r.fs)).node
	directs := func() int64 {
		n.Mu.RLock()
		defer n.Mu.RUnlock()
		return n.file.DirectHandles()
	}
	// Made writable, and encrypted: each time the file behind the handles is another one.
	if _, err := other.WriteAt([]byte(guest+"\x00\x01"), 0); err != nil {
		t.Fatal(err)
	}
	r.wantForm("a.vmdk", "encrypted")
	if got := directs(); got != 1 {
		t.Errorf("%d direct callers, want 1", got)
	}
	direct.Close()
	r.idleBut(1)
	if got := directs(); got != 0 {
		t.Errorf("%d direct callers, want 0", got)
	}
}
