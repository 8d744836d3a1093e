package content

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/cryptfile"
	"vmcryptfs/integration/leak"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// sealed is an encrypted file of BACKING, with its key.
type sealed struct {
	path string
	kek  *keys.KEK
}

// newSealed makes an empty encrypted file.
func newSealed(t *testing.T) *sealed {
	t.Helper()
	kek, err := keys.NewKEK("test", "kek-1", bytes.Repeat([]byte{1, 2}, keys.KEKSize/2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kek.Wipe)
	dek, err := keys.NewDEK()
	if err != nil {
		t.Fatal(err)
	}
	defer dek.Wipe()
	h := &layout.Header{Generation: 1, FileID: keys.NewFileID()}
	if err := kek.Wrap(h, 0, dek); err != nil {
		t.Fatal(err)
	}
	dek.Seal(h)
	s := &sealed{filepath.Join(t.TempDir(), "f"), kek}
	if err := os.WriteFile(s.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := s.backing(t, 0)
	defer b.Close()
	if err := cryptfile.Format(b, h); err != nil {
		t.Fatal(err)
	}
	return s
}

// backing opens the backing file.
func (s *sealed) backing(t *testing.T, flags int) *cryptfile.OSFile {
	t.Helper()
	fd, err := unix.Open(s.path, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	return cryptfile.NewOSFile(fd)
}

// slots reads the header.
func (s *sealed) slots(t *testing.T) layout.Slots {
	t.Helper()
	b := s.backing(t, 0)
	defer b.Close()
	slots, err := cryptfile.ReadHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	return slots
}

// open opens the file as a mount does. The test's end closes the file.
func (s *sealed) open(t *testing.T, b *cryptfile.OSFile) *File {
	t.Helper()
	slots := s.slots(t)
	dek, err := s.kek.Unwrap(slots.Header, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, warning, err := OpenEncrypted(b, dek, both, slots.Differ)
	if err != nil || warning != nil {
		t.Fatal(err, warning)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
			t.Error(err)
		}
	})
	return f
}

// TestEncrypted: the content is what was written, and none of it lies in BACKING. Size is that of
// the content.
func TestEncrypted(t *testing.T) {
	s := newSealed(t)
	f := s.open(t, s.backing(t, 0))
	if size, err := f.Size(); size != 0 || err != nil {
		t.Errorf("size of a new file: %d, %v", size, err)
	}
	text := bytes.Repeat([]byte("plain text "), 100)
	if n, err := f.WriteAt(bytes.Clone(text), 0, cryptfile.Data); n != len(text) || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if size, err := f.Size(); size != int64(len(text)) || err != nil {
		t.Errorf("size %d, %v; want %d", size, err, len(text))
	}
	got := make([]byte, len(text))
	if n, err := f.ReadAt(got, 0); n != len(got) || err != nil || !bytes.Equal(got, text) {
		t.Errorf("read: %d, %v, or other bytes", n, err)
	}
	raw, err := os.ReadFile(s.path)
	if err != nil || bytes.Contains(raw, []byte("plain")) || len(raw) < layout.DataOffset+len(text) {
		t.Errorf("in BACKING: %d bytes, %v, or in clear", len(raw), err)
	}
	if f.Form != backing.Encrypted || f.InClear() {
		t.Errorf("form %v, in clear %t", f.Form, f.InClear())
	}
}

// TestCarrier: what an encrypted file does not know itself is asked of the file of BACKING.
func TestCarrier(t *testing.T) {
	s := newSealed(t)
	b := s.backing(t, unix.O_NOATIME)
	f := s.open(t, b)
	if f.Stored() != b {
		t.Error("the file in BACKING is another")
	}
	if failure := f.SyncFailure(); failure != nil {
		t.Errorf("a lost write, of none: %v", failure)
	}
	f.InheritUnheard(&cryptfile.SyncFailure{Err: unix.EIO})
	if failure := f.SyncFailure(); failure == nil || failure != f.Unheard() || failure != b.SyncFailure() {
		t.Errorf("the lost write is %v", failure)
	}
	f.SyncFailure().Hear()
	if failure := f.Unheard(); failure != nil {
		t.Errorf("a failure that was heard: %v", failure)
	}
	if flags := flagsOf(t, b); flags&unix.O_NOATIME == 0 {
		t.Fatal("reads count from the beginning: nothing is tested")
	}
	f.CountReads()
	if flags := flagsOf(t, b); flags&unix.O_NOATIME != 0 {
		t.Error("reads leave no access times")
	}
	before := leak.Descriptors(t)
	f.WantDirect(1)
	if opened := leak.Descriptors(t) > before; opened != permitsDirect(t, s.path) {
		t.Errorf("a way around the page cache: %t", opened)
	}
	f.WantDirect(-1)
}

// flagsOf are the flags that a file of BACKING is open with.
func flagsOf(t *testing.T, b *cryptfile.OSFile) int {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(b.Fd()), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

// permitsDirect reports whether the file system of a path says what it asks of direct requests.
func permitsDirect(t *testing.T, path string) bool {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_DIOALIGN, &st); err != nil {
		t.Fatal(err)
	}
	return st.Mask&unix.STATX_DIOALIGN != 0 && st.Dio_offset_align > 0
}

// TestOpenOfBadLength: a file that ends inside its header is an error, and one of a length that no
// file has is served as empty. The backing file is closed in either case, at once or with the file.
func TestOpenOfBadLength(t *testing.T) {
	for _, tt := range []struct {
		length  int64
		err     error
		warning error
	}{
		{layout.DataOffset, nil, nil},
		{layout.DataOffset - 1, layout.ErrDamaged, nil},
		{layout.DataOffset + 300, nil, cryptfile.ErrLength},
	} {
		s := newSealed(t)
		dek, err := s.kek.Unwrap(s.slots(t).Header, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(s.path, tt.length); err != nil {
			t.Fatal(err)
		}
		before := leak.Descriptors(t)
		f, warning, err := OpenEncrypted(s.backing(t, 0), dek, both, false)
		if !errors.Is(err, tt.err) || !errors.Is(warning, tt.warning) || (f == nil) != (tt.err != nil) {
			t.Errorf("%d bytes: %v, warning %v", tt.length, err, warning)
		}
		if f != nil {
			if size, err := f.Size(); size != 0 || err != nil {
				t.Errorf("%d bytes: size %d, %v", tt.length, size, err)
			}
			f.Close()
		}
		if leak.Descriptors(t) != before {
			t.Errorf("%d bytes: the backing file is left open", tt.length)
		}
	}
}
