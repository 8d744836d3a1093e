package fs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"vmcryptfs/layout"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// with is the number of lines with text in them.
func (l *lines) with(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// openForgotten looks a file up, opens the file, and has it forgotten, as the kernel does.
func (r *rig) openForgotten(name string, flags uint32) unix.Errno {
	var entry fuse.EntryOut
	if status := r.fs.Raw().Lookup(nil, &fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, name, &entry); status != fuse.OK {
		return unix.Errno(status)
	}
	defer r.fs.Raw().Forget(entry.NodeId, 1)
	in := fuse.OpenIn{Flags: flags}
	in.NodeId = entry.NodeId
	var out fuse.OpenOut
	status := r.fs.Raw().Open(nil, &in, &out)
	if status == fuse.OK {
		r.fs.Raw().Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
	}
	return unix.Errno(status)
}

// TestToldOnce: a file that cannot be opened is in the log once, however many opens are tried, and
// in the counts each time; and in the log again after a good open.
func TestToldOnce(t *testing.T) {
	const opens = 1000
	newer := func(good []byte) []byte {
		b := bytes.Clone(good)
		for _, at := range []int{0, layout.SlotBOffset} {
			slot := b[at:][:4096]
			slot[8] = 2
			sum := sha256.Sum256(slot[:4064])
			copy(slot[4064:], sum[:])
		}
		return b
	}
	damaged := func(good []byte) []byte {
		b := bytes.Clone(good)
		b[30] ^= 1
		b[layout.SlotBOffset+30] ^= 1
		return b
	}
	plain := func([]byte) []byte { return []byte("cleartext") }
	for _, tt := range []struct {
		what   string
		bad    func(good []byte) []byte
		policy Unencrypted
		errno  unix.Errno // to write; reads may be permitted
		line   string
		count  func(Stats) uint64
		per    uint64 // counted, of opens
	}{
		{"damaged", damaged, Deny, unix.EIO, "damaged file", func(s Stats) uint64 { return s.Damaged }, opens},
		{"newer version", newer, Deny, unix.EOPNOTSUPP, "file of a newer version", func(s Stats) uint64 { return s.NewerVersion }, opens},
		{"cleartext", plain, Deny, unix.EACCES, "cleartext under", func(s Stats) uint64 { return s.Denied }, opens},
		{"cleartext to be read", plain, Read, unix.EACCES, "cleartext under", func(s Stats) uint64 { return s.Denied }, opens / 2},
	} {
		t.Run(tt.what, func(t *testing.T) {
			var log lines
			r := newRig(t, func(_ *layout.Settings, c *Config) {
				c.Log, c.Unencrypted = slog.New(slog.NewTextHandler(&log, nil)), tt.policy
			})
			r.write("a.img", "secret")
			r.idle()
			r.forgetAll()
			good, err := os.ReadFile(r.under("a.img"))
			if err != nil {
				t.Fatal(err)
			}
			for fault := range 2 {
				r.plant("a.img", string(tt.bad(good)))
				before := tt.count(r.fs.Stats())
				for i := range opens {
					if i%2 == 0 {
						wantErrno(t, "open to write", r.openForgotten("a.img", unix.O_RDWR), tt.errno)
					} else {
						_ = r.openForgotten("a.img", unix.O_RDONLY)
					}
				}
				if got := log.with(tt.line); got != fault+1 {
					t.Errorf("fault %d: %d lines in all, want %d", fault+1, got, fault+1)
				}
				if got := tt.count(r.fs.Stats()) - before; got != tt.per {
					t.Errorf("fault %d: counted %d times, want %d", fault+1, got, tt.per)
				}
				r.plant("a.img", string(good))
				wantErrno(t, "open of the file repaired", r.openForgotten("a.img", unix.O_RDWR), 0)
			}
		})
	}
}

// TestToldKey: the same for an absent key.
func TestToldKey(t *testing.T) {
	var log lines
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	r.write("a.img", "secret")
	for outage := range 2 {
		r.dropKeys()
		r.forgetAll()
		r.kms.down.Store(true)
		before := r.fs.Stats().NoKey
		for range 100 {
			wantErrno(t, "open", r.openForgotten("a.img", unix.O_RDONLY), unix.ENOKEY)
		}
		if got := log.with("refused: key not available"); got != outage+1 {
			t.Errorf("outage %d: %d lines in all", outage+1, got)
		}
		if got := r.fs.Stats().NoKey - before; got != 100 {
			t.Errorf("outage %d: counted %d times", outage+1, got)
		}
		r.kms.down.Store(false)
		r.cache.Unlock() // forgets the failure
		r.wantRead("a.img", "secret")
	}
}

// TestToldOfEmpty: an empty file with a name outside of BACKING gets no form. A reader is served,
// and ends no reason.
func TestToldOfEmpty(t *testing.T) {
	var log lines
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	r.plant("a.img", "")
	if err := os.Link(r.under("a.img"), r.state+"-outside"); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		wantErrno(t, "open to write", r.openForgotten("a.img", unix.O_RDWR), unix.EACCES)
		wantErrno(t, "open to read", r.openForgotten("a.img", unix.O_RDONLY), 0)
	}
	if got := log.with("no form yet"); got != 1 {
		t.Errorf("%d lines", got)
	}
}

// TestToldBadLength: an encrypted file of an impossible length opens well, with a line.
func TestToldBadLength(t *testing.T) {
	var log lines
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	r.write("a.img", "secret")
	r.idle()
	if err := os.Truncate(r.under("a.img"), layout.DataOffset+300); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		wantErrno(t, "open", r.openForgotten("a.img", unix.O_RDONLY), 0)
	}
	if got := log.with("bad length"); got != 1 {
		t.Errorf("%d lines", got)
	}
}

// TestToldIsBounded, and each reason of each file is told once to whoever asks.
func TestToldIsBounded(t *testing.T) {
	s := told{now: time.Now}
	file := func(i int) toldFile { return toldFile{ino: uint64(i)} }
	var asking sync.WaitGroup
	var mu sync.Mutex
	firsts := map[string]int{}
	for range 8 {
		asking.Go(func() {
			for i := range 100 {
				for _, why := range []reason{damagedHeader, unencrypted} {
					if s.first(file(i), why) {
						mu.Lock()
						firsts[fmt.Sprint(i, why)]++
						mu.Unlock()
					}
				}
			}
		})
	}
	asking.Wait()
	if len(firsts) != 200 {
		t.Errorf("%d of 200 told", len(firsts))
	}
	for what, n := range firsts {
		if n != 1 {
			t.Errorf("%s told %d times", what, n)
		}
	}
	for i := range 3 * mostTold {
		s.first(file(i), keptClear)
	}
	if len(s.about) > mostTold {
		t.Errorf("%d files remembered", len(s.about))
	}
	for i := range 3 * mostTold {
		s.over(file(i), keptClear|damagedHeader|unencrypted)
	}
	if len(s.about) > 0 || s.any.Load() {
		t.Errorf("%d files remembered when all is over", len(s.about))
	}
}

// TestToldAgain: a reason without an end is told again after toldFor, and not before.
func TestToldAgain(t *testing.T) {
	var log lines
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	later := r.stopClock()
	r.write("a.img", "secret")
	n := known(r.fs, r.fs.table.Root().In("a.img"))
	for month := range 3 {
		for _, err := range []error{unix.EIO, layout.ErrDamaged} {
			for range 100 {
				wantErrno(t, "open", r.openForgotten("a.img", unix.O_RDWR), 0)
				_ = r.fs.status(ofNode("read", n), r.fs.failed(n, err))
			}
		}
		if backing, damaged := log.with("error of BACKING"), log.with("damaged file"); backing != month+1 || damaged != month+1 {
			t.Errorf("month %d: %d and %d lines in all", month+1, backing, damaged)
		}
		later(toldFor)
	}
}

// TestUnexpectedErrors are each told.
func TestUnexpectedErrors(t *testing.T) {
	var log lines
	r := newRig(t, func(_ *layout.Settings, c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, err := range []error{errors.New("first"), errors.New("second"), unix.Errno(mostErrno)} {
		if got := r.fs.errno(err); got != unix.EIO {
			t.Errorf("%v is %v", err, got)
		}
	}
	if got := log.with("unexpected error"); got != 3 || log.with("second") != 1 {
		t.Errorf("%d lines:\n%s", got, log.text.String())
	}
}
