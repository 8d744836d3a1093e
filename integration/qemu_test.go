package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmcryptfs/integration/mounttest"
)

// guestDisk makes a raw image with a disk's typical content: data, text, written zeros, holes.
func guestDisk(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "source.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for off := int64(0); off < size; off += 4 << 20 {
		for _, part := range [][]byte{random(300 << 10), []byte(strings.Repeat(diskMarker, 4096)), make([]byte, 64<<10)} {
			n, err := f.WriteAt(part, off)
			if err != nil {
				t.Fatal(err)
			}
			off += int64(n)
		}
		off &^= 4<<20 - 1
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

const diskMarker = "GUEST-SECRET-0123456789-"

// TestQemuFormats lets qemu-img write, read, compare and check every disk format on the
// mount, before and after a remount.
func TestQemuFormats(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	const size = 32 << 20
	source := guestDisk(t, size)
	images := []struct {
		name, format, subformat string
		form                    map[string]string // of the format's files in BACKING
		check                   bool              // qemu-img check works for the format
	}{
		{"sparse.vmdk", "vmdk", "monolithicSparse", map[string]string{"sparse.vmdk": "encrypted"}, true},
		{"flat.vmdk", "vmdk", "monolithicFlat", map[string]string{"flat.vmdk": "clear", "flat-flat.vmdk": "encrypted"}, false},
		{"split.vmdk", "vmdk", "twoGbMaxExtentSparse", map[string]string{"split.vmdk": "clear", "split-s001.vmdk": "encrypted"}, true},
		{"splitflat.vmdk", "vmdk", "twoGbMaxExtentFlat", map[string]string{"splitflat.vmdk": "clear", "splitflat-f001.vmdk": "encrypted"}, false},
		{"stream.vmdk", "vmdk", "streamOptimized", map[string]string{"stream.vmdk": "encrypted"}, true},
		{"disk.qcow2", "qcow2", "", map[string]string{"disk.qcow2": "encrypted"}, true},
		{"disk.raw", "raw", "", map[string]string{"disk.raw": "encrypted"}, false},
	}
	options := func(subformat string) []string {
		if subformat == "" {
			return nil
		}
		return []string{"-o", "subformat=" + subformat}
	}
	for _, im := range images {
		args := append([]string{"qemu-img", "convert", "-t", "none", "-T", "none", "-f", "raw", "-O", im.format}, options(im.subformat)...)
		mounttest.Tool(t, append(args, source, d.Path(im.name))...)
	}
	examine := func(when string) {
		for _, im := range images {
			mounttest.Tool(t, "qemu-img", "compare", "-f", "raw", "-F", im.format, source, d.Path(im.name))
			if im.check {
				mounttest.Tool(t, "qemu-img", "check", "-f", im.format, d.Path(im.name))
			}
			wantInfo(t, d.Path(im.name), im.format, im.subformat, size)
			d.WantForms(im.form)
		}
		if t.Failed() {
			t.Fatalf("%s", when)
		}
	}
	examine("after convert")
	d.Remount()
	examine("after a remount")
	if strings.Contains(string(readTree(t, d.Backing)), diskMarker) {
		t.Error("a disk's content lies in BACKING in clear")
	}
	d.verify()
	t.Logf("%d formats converted, compared and checked", len(images))
}

func wantInfo(t *testing.T, path, format, subformat string, size int64) {
	t.Helper()
	var info struct {
		Format      string `json:"format"`
		VirtualSize int64  `json:"virtual-size"`
		Specific    struct {
			Data struct {
				CreateType string `json:"create-type"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	text := mounttest.Tool(t, "qemu-img", "info", "--output=json", "-f", format, path)
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		t.Fatal(err)
	}
	if info.Format != format || info.VirtualSize != size || info.Specific.Data.CreateType != subformat {
		t.Errorf("info of %s: format %q, size %d, type %q; want %q, %d, %q",
			path, info.Format, info.VirtualSize, info.Specific.Data.CreateType, format, size, subformat)
	}
}

// TestQemuIO writes and reads patterns with the cache modes of a running guest, through
// disks made by qemu-img create.
func TestQemuIO(t *testing.T) {
	t.Parallel()
	d := newDatastore(t)
	disks := []struct{ name, format, options string }{
		{"io.raw", "raw", ""},
		{"io.qcow2", "qcow2", ""},
		{"io.vmdk", "vmdk", "subformat=monolithicSparse"},
		{"ioflat.vmdk", "vmdk", "subformat=monolithicFlat"},
	}
	patterns := []string{
		"write -P 0x5a 0 64k", "write -P 0xa5 64k 512", "write -P 0x3c 66048 1M", "write -z 1M 64k",
		"write -P 0x77 8M 4M", "flush",
	}
	want := []string{
		"read -P 0x5a 0 64k", "read -P 0xa5 64k 512", "read -P 0x3c 66048 982528", "read -P 0 1M 64k",
		"read -P 0x77 8M 4M", "read -P 0 13M 2M",
	}
	var tried int
	for _, disk := range disks {
		args := []string{"qemu-img", "create", "-q", "-f", disk.format}
		if disk.options != "" {
			args = append(args, "-o", disk.options)
		}
		mounttest.Tool(t, append(args, d.Path(disk.name), "16M")...)
		for _, cache := range []string{"none", "writeback", "directsync"} {
			qemuIO(t, cache, disk.format, d.Path(disk.name), patterns...)
			qemuIO(t, cache, disk.format, d.Path(disk.name), want...)
			tried += len(patterns) + len(want)
		}
	}
	// TRIM leaves zeros (raw: unmap is a punched hole).
	qemuIO(t, "none", "raw", d.Path("io.raw"), "discard 8M 2M", "read -P 0 8M 2M", "read -P 0x77 10M 2M")
	d.Remount()
	for _, disk := range disks[1:] {
		qemuIO(t, "none", disk.format, d.Path(disk.name), want...)
	}
	d.verify()
	t.Logf("%d qemu-io requests with patterns", tried)
}

func qemuIO(t *testing.T, cache, format, path string, commands ...string) {
	t.Helper()
	args := []string{"qemu-io", "-f", format, "-t", cache, "-d", "unmap"}
	if cache != "writeback" {
		args = append(args, "-i", "native")
	}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	r := mounttest.Run(t, nil, append(args, path)...)
	if r.Code != 0 || strings.Contains(r.Stdout+r.Stderr, "Pattern verification failed") {
		t.Fatal(fmt.Sprintf("cache=%s: ", cache), r)
	}
}
