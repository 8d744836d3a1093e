package fs

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/content"
	"vmcryptfs/integration/mounttest"
)

// TestBufferedBesideDirect: pages read before a direct write are not kept after the write. The test
// gives the write to the filesystem by hand, as an asynchronous write arrives: the kernel dropped
// the pages at the submission, and has read the pages again since.
func TestBufferedBesideDirect(t *testing.T) {
	for _, name := range []string{"a.qcow2", "a.log"} {
		r := newRig(t, nil)
		r.write(name, string(bytes.Repeat([]byte("old."), 4096)))
		direct, err := os.OpenFile(r.path(name), os.O_RDWR|unix.O_DIRECT, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer direct.Close()
		fh := handleThat(t, r.fs, func(h *handle) bool { return h.direct })
		writeAndRead := func(reader *os.File, text string) {
			t.Helper()
			in := &fuse.WriteIn{Fh: fh, Offset: 4096, Size: 4096}
			if n, s := r.fs.Raw().Write(nil, in, bytes.Repeat([]byte(text), 1024)); n != 4096 || s != fuse.OK {
				t.Fatalf("write: %d, %v", n, s)
			}
			if reader == nil {
				if reader, err = os.Open(r.path(name)); err != nil {
					t.Fatal(err)
				}
				defer reader.Close()
			}
			p := make([]byte, 4)
			if _, err := reader.ReadAt(p, 4096); err != nil || string(p) != text {
				t.Errorf("%s: read %q, %v; %q was written before", name, p, err, text)
			}
		}
		reader, err := os.Open(r.path(name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := reader.ReadAt(make([]byte, 8192), 0); err != nil {
			t.Fatal(err)
		}
		writeAndRead(reader, "new1")
		if err := reader.Close(); err != nil {
			t.Fatal(err)
		}
		writeAndRead(nil, "new2")
		writeAndRead(nil, "new3")
	}
}

// notices is a Notifier that calls a function before it drops pages.
type notices struct {
	Notifier
	before func()
}

func (n notices) InodeNotify(node uint64, off, length int64) fuse.Status {
	n.before()
	return n.Notifier.InodeNotify(node, off, length)
}

// TestOpenedMeanwhile: an open does not trust pages that are about to be dropped.
func TestOpenedMeanwhile(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.qcow2", string(make([]byte, 8192)))
	r.read("a.qcow2")
	direct := r.open("a.qcow2", os.O_RDWR|unix.O_DIRECT)
	n := handleThat(t, r.fs, func(h *handle) bool { return h.direct })
	node := r.fs.handles.get(n).node
	r.fs.wroteDirectly(node, 0, 4096)
	kernel := *r.fs.notifier.Load()
	defer r.fs.SetNotifier(kernel)
	for _, since := range []string{"a direct write", "a change by others"} {
		opened := 0
		r.fs.SetNotifier(notices{kernel, func() {
			if opened++; opened == 1 && r.fs.openBuffered(node) {
				t.Errorf("after %s: the pages are kept", since)
			}
		}})
		if r.fs.openBuffered(node) || opened < 2 {
			t.Errorf("after %s: the pages are kept by who opens the file first", since)
		}
		r.fs.SetNotifier(kernel)
		if !r.fs.openBuffered(node) {
			t.Errorf("after %s: right pages are not kept", since)
		}
		node.readSince(backing.Stamp{})
	}
	if err := direct.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPagesOfAnOldFile: the kernel has pages from before a foreign change. An operation that opens
// the file for itself, here a rename that fails for want of a key, does not make the pages right.
func TestPagesOfAnOldFile(t *testing.T) {
	r := newRig(t, nil)
	r.plant("x.log", "first")
	r.wantRead("x.log", "first")
	r.idle()
	r.plant("x.log", "other")
	// So that the test does not depend on the steps of this kernel's clock.
	if err := os.Chtimes(r.under("x.log"), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	r.dropKeys()
	r.kms.down.Store(true)
	wantErrno(t, "rename", os.Rename(r.path("x.log"), r.path("x.img")), unix.ENOKEY)
	r.wantRead("x.log", "other")
}

// TestStatWhilePagesAreDropped: no caller is told of a foreign change while the former pages are
// there, not even one that asks while another's request drops the pages.
func TestStatWhilePagesAreDropped(t *testing.T) {
	r := newRig(t, nil)
	r.plant("x.log", "first")
	reader := r.open("x.log", os.O_RDONLY)
	defer reader.Close()
	node := r.fs.handles.get(anyHandle(t, r.fs)).node
	if err := os.WriteFile(r.under("x.log"), []byte("first and more"), 0o644); err != nil {
		t.Fatal(err)
	}
	kernel := *r.fs.notifier.Load()
	defer r.fs.SetNotifier(kernel)
	var dropped int
	stat := func() {
		if _, err := r.fs.attr(node, new(fuse.Attr)); err != nil {
			t.Error(err)
		}
	}
	r.fs.SetNotifier(notices{kernel, func() {
		if dropped++; dropped == 1 {
			stat()
		}
	}})
	stat()
	if dropped != 2 {
		t.Errorf("pages dropped %d times, want each time before the answer", dropped)
	}
	if stat(); dropped != 2 {
		t.Error("pages dropped once more for the same change")
	}
}

// TestPagesFromBeforeAWriteByName: the kernel has pages of an encrypted file from before a foreign
// change. A write of this mount, by the name alone, does not make the pages right.
func TestPagesFromBeforeAWriteByName(t *testing.T) {
	r := newRig(t, nil)
	r.write("a.qcow2", "disk")
	r.remount()
	reader := r.open("a.qcow2", os.O_RDONLY)
	node := r.fs.handles.get(anyHandle(t, r.fs)).node
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	r.idle()
	open := func(want bool, after string) {
		t.Helper()
		if err := r.fs.acquire(nil, node, content.Intent{Write: true}); err != nil {
			t.Fatal(err)
		}
		err := r.fs.change(nil, node, change{apply: func(c content.Content) error { return c.Truncate(4) }})
		if err != nil {
			t.Fatal(err)
		}
		if right := r.fs.openBuffered(node); right != want {
			t.Errorf("after %s: the pages are right: %v", after, right)
		}
		node.pages.closeBuffered()
		if err := r.fs.release(node, true); err != nil {
			t.Fatal(err)
		}
	}
	open(true, "a write")
	r.wantRead("a.qcow2", "disk")
	r.idle()
	if err := os.Chtimes(r.under("a.qcow2"), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	open(false, "a change by others and a write")
}

// TestDirectReadOfLessThanASector: QEMU learns the alignment of requests so.
func TestDirectReadOfLessThanASector(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range []string{"a.qcow2", "a.log"} {
		r.write(name, string(make([]byte, 1024+100)))
		fd, err := unix.Open(r.path(name), unix.O_RDONLY|unix.O_DIRECT, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		p := make([]byte, 4096)
		for _, c := range []struct{ off, size, want int }{
			{0, 1, -1}, {512, 511, -1}, {0, 512, 512}, {512, 512, 512}, {1024, 512, 100}, {0, 4096, 1124},
		} {
			var n int
			err := mounttest.Uninterrupted(func() (err error) {
				n, err = unix.Pread(fd, p[:c.size], int64(c.off))
				return err
			})
			if c.want < 0 && !errors.Is(err, unix.EINVAL) || c.want >= 0 && (err != nil || n != c.want) {
				t.Errorf("%s: direct read of %d bytes at %d: %d, %v; want %d", name, c.size, c.off, n, err, c.want)
			}
		}
	}
}
