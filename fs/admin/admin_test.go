package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"vmcryptfs/fs"
	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/wire"
	"vmcryptfs/fs/work"
	"vmcryptfs/keys"
)

const testID = "0b8a5c1e-7f52-4c0e-9d0a-6a1f0c3e2b11"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeSource is a daemon with canned answers.
type fakeSource struct {
	policies  fakePolicies
	moves     fakeMoves
	mount     Mount
	status    Status
	files     []File
	census    backing.Census
	filesErr  error
	unlockErr error
	leaveErr  error

	health     Health
	options    []string // of the last Remount
	remountErr error
	settings   fakeSettings
	rekey      func(context.Context, rekey.Request, func(rekey.Event) error) (rekey.Summary, error)
	hang       chan struct{} // Status waits for ctx after closing it; nil: does not hang
}

func (s *fakeSource) Mount() Mount { return s.mount }

func (s *fakeSource) Status(ctx context.Context) (Status, error) {
	if s.hang != nil {
		close(s.hang)
		<-ctx.Done()
		return Status{}, ctx.Err()
	}
	return s.status, nil
}

func (s *fakeSource) Health(context.Context) Health { return s.health }

func (s *fakeSource) Files(_ context.Context, each func(File) error) (backing.Census, error) {
	for _, f := range s.files {
		if err := each(f); err != nil {
			return backing.Census{}, err
		}
	}
	return s.census, s.filesErr
}

func (s *fakeSource) Lock(context.Context) (LockResult, error) { return LockResult{OpenFiles: 3}, nil }
func (s *fakeSource) Unlock(context.Context) error             { return s.unlockErr }
func (s *fakeSource) Remount(_ context.Context, options []string) error {
	s.options = options
	return s.remountErr
}
func (s *fakeSource) Leave(context.Context) error { return s.leaveErr }

func (s *fakeSource) Rekey(ctx context.Context, r rekey.Request, each func(rekey.Event) error) (rekey.Summary, error) {
	return s.rekey(ctx, r, each)
}

var discard = slog.New(slog.DiscardHandler)

// serve answers for source on the socket of testID in a directory of the test's.
func serve(t *testing.T, source Source) (dir string, s *Server) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "run")
	l, err := Listen(dir, testID)
	if err != nil {
		t.Fatal(err)
	}
	s = Serve(l, source, &work.Runner{}, discard)
	t.Cleanup(func() { s.Close() })
	return dir, s
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	source := &fakeSource{
		mount: Mount{PID: 7, Version: "v1", Datastore: testID, Backing: "/b", Mountpoint: "/m"},
		status: Status{
			Since: since, Transport: "go-fuse", Cipher: "portable", Unencrypted: "deny", Verified: true,
			KEK:       wire.KeyName{Provider: "corp", Identifier: "id-1"},
			Providers: []Provider{{Name: "corp", Servers: []keys.ServerHealth{{Address: "kms1:5696", OK: true, Version: "1.4"}}}},
			Keys:      []Key{{KeyName: wire.KeyName{Provider: "corp", Identifier: "id-1"}, State: "Active", Age: 12, Since: since}},
			Files:     Files{Census: backing.Census{Encrypted: 4, ByClass: map[string]int64{"disks": 4}}, Complete: true},
			IO:        fs.Stats{ReadOps: 9},
			Warnings:  []string{"one"},
		},
	}
	source.status.Mount = source.mount
	dir, _ := serve(t, source)
	c := NewClient(dir, testID)

	mount, err := c.Mount(t.Context())
	if err != nil || mount != source.mount {
		t.Errorf("Mount = %+v, %v; want %+v", mount, err, source.mount)
	}
	status, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(source.status, status); diff != "" {
		t.Errorf("Status differs (-sent +received):\n%s", diff)
	}
	locked, err := c.Lock(t.Context())
	if err != nil || locked.OpenFiles != 3 {
		t.Errorf("Lock = %+v, %v; want 3 open files", locked, err)
	}
	if err := c.Unlock(t.Context()); err != nil {
		t.Errorf("Unlock: %v", err)
	}
}

// TestErrorsKeepTheirReason: errors.Is gives the same answers on both sides of the socket.
func TestErrorsKeepTheirReason(t *testing.T) {
	t.Parallel()
	sent := fmt.Errorf("key %q: %w", "id-1", keys.ErrUnreachable)
	dir, _ := serve(t, &fakeSource{unlockErr: sent})
	err := NewClient(dir, testID).Unlock(t.Context())
	if err == nil || err.Error() != sent.Error() || !errors.Is(err, keys.ErrUnreachable) {
		t.Errorf("got %v, want %q with its identity", err, sent)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	sent := []File{
		{Path: "vm/a.vmdk", Form: "encrypted", Rule: "disks"},
		{Path: "vm/\xff\n.log", Form: "clear", Rule: "logs"}, // neither UTF-8 nor one line
	}
	source := &fakeSource{files: sent, census: backing.Census{Encrypted: 1, Clear: 1}}
	dir, _ := serve(t, source)
	var got []File
	census, err := NewClient(dir, testID).Files(t.Context(), func(f File) error {
		got = append(got, File{Path: f.Path, Form: f.Form, Rule: f.Rule})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Errorf("files differ (-sent +received):\n%s", diff)
	}
	if diff := cmp.Diff(source.census, census); diff != "" {
		t.Errorf("census differs (-sent +received):\n%s", diff)
	}
}

func TestFilesCutShort(t *testing.T) {
	t.Parallel()
	dir, _ := serve(t, &fakeSource{filesErr: errors.New("disk on fire")})
	_, err := NewClient(dir, testID).Files(t.Context(), func(File) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("got %v, want the walk's error", err)
	}
}

func TestFilesStoppedByReceiver(t *testing.T) {
	t.Parallel()
	enough := errors.New("enough")
	dir, _ := serve(t, &fakeSource{files: make([]File, 100_000)})
	_, err := NewClient(dir, testID).Files(t.Context(), func(File) error { return enough })
	if !errors.Is(err, enough) {
		t.Errorf("got %v, want %v", err, enough)
	}
}

func TestSocketIsPrivate(t *testing.T) {
	t.Parallel()
	dir, s := serve(t, &fakeSource{})
	for path, want := range map[string]os.FileMode{dir: 0o700, socketPath(dir, testID): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(socketPath(dir, testID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close the socket is still there: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestPeers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		uid, owner uint32
		want       bool
	}{{0, 0, true}, {1000, 1000, true}, {0, 1000, true}, {1000, 0, false}, {1001, 1000, false}} {
		if got := peerAllowed(c.uid, c.owner); got != c.want {
			t.Errorf("peerAllowed(%d, %d) = %t, want %t", c.uid, c.owner, got, c.want)
		}
	}
}

// TestPeer asks the kernel about ourselves.
func TestPeer(t *testing.T) {
	t.Parallel()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	peer, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	got, err := peerOf(peer)
	want := work.Peer{UID: uint32(os.Geteuid()), PID: int32(os.Getpid())}
	if err != nil || got != want {
		t.Errorf("peerOf = %+v, %v; want %+v", got, err, want)
	}
}

func TestLiveSocketIsRefused(t *testing.T) {
	t.Parallel()
	dir, _ := serve(t, &fakeSource{mount: Mount{PID: 7}})
	if _, err := Listen(dir, testID); !errors.Is(err, ErrInUse) {
		t.Fatalf("second Listen: %v, want ErrInUse", err)
	}
	if m, err := NewClient(dir, testID).Mount(t.Context()); err != nil || m.PID != 7 {
		t.Errorf("the first mount answers %+v, %v after it", m, err)
	}
}

// TestStaleSocketIsReplaced: a killed daemon leaves a socket.
func TestStaleSocketIsReplaced(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run")
	l, err := Listen(dir, testID)
	if err != nil {
		t.Fatal(err)
	}
	l.l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := os.Stat(socketPath(dir, testID)); err != nil {
		t.Fatalf("no stale socket to test with: %v", err)
	}
	if clients, _, err := Mounts(t.Context(), dir); len(clients) != 0 || err != nil {
		t.Errorf("Mounts beside a stale socket = %d clients, %v; want none", len(clients), err)
	}
	l, err = Listen(dir, testID)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestBadRunDirectory(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	for name, make := range map[string]func(dir string) error{
		"file":       func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"link":       func(dir string) error { return os.Symlink(top, dir) },
		"for-others": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(top, name)
			if err := make(dir); err != nil {
				t.Fatal(err)
			}
			if l, err := Listen(dir, testID); err == nil {
				l.Close()
				t.Error("Listen accepts it")
			}
		})
	}
	for _, id := range []string{"", "../x", "a/b", "a\x00b"} {
		if l, err := Listen(filepath.Join(top, "ids"), id); err == nil {
			l.Close()
			t.Errorf("Listen accepts the id %q", id)
		}
	}
}

func TestLongPath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if l, err := Listen(dir, testID); err == nil || !strings.Contains(err.Error(), "longer than 107 bytes") {
		if l != nil {
			l.Close()
		}
		t.Errorf("Listen: %v, want that the path is too long", err)
	}
}

func TestMounts(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run")
	for id, mountpoint := range map[string]string{"id-1": "/vm/b", "id-2": "/vm/a"} {
		l, err := Listen(dir, id)
		if err != nil {
			t.Fatal(err)
		}
		s := Serve(l, &fakeSource{mount: Mount{Datastore: id, Mountpoint: mountpoint}}, &work.Runner{}, discard)
		defer s.Close()
	}
	clients, mounts, err := Mounts(t.Context(), dir)
	if err != nil || len(clients) != 2 {
		t.Fatalf("%d mounts, %v; want 2", len(clients), err)
	}
	if mounts[0].Mountpoint != "/vm/a" || mounts[1].Mountpoint != "/vm/b" {
		t.Errorf("mounts are %v, want them by mountpoint", mounts)
	}
	if m, err := clients[1].Mount(t.Context()); err != nil || m.Datastore != "id-1" {
		t.Errorf("the second client speaks to %v, %v; want id-1", m, err)
	}
}

// TestCloseEndsRequests: an unmount does not wait for a walk over a large datastore.
func TestCloseEndsRequests(t *testing.T) {
	t.Parallel()
	source := &fakeSource{hang: make(chan struct{})}
	dir, s := serve(t, source)
	failed := make(chan error, 1)
	go func() {
		_, err := NewClient(dir, testID).Status(t.Context())
		failed <- err
	}()
	<-source.hang
	s.Close()
	if err := <-failed; err == nil {
		t.Error("the request ended well")
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	dir, _ := serve(t, &fakeSource{})
	c := NewClient(dir, testID)
	for _, r := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/v1/lock", http.StatusMethodNotAllowed}, // a link must not lock
		{"POST", "/v1/status", http.StatusMethodNotAllowed},
		{"GET", "/v2/status", http.StatusNotFound},
		{"GET", "/", http.StatusNotFound},
	} {
		req, err := http.NewRequestWithContext(t.Context(), r.method, "http://vmcryptfs"+r.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != r.want {
			t.Errorf("%s %s: %d, want %d", r.method, r.path, resp.StatusCode, r.want)
		}
	}
}

// TestBadAnswers: with any file or server at the socket, a command ends with an error naming the
// socket.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"empty":     "",
		"not JSON":  "<html>",
		"endless":   `{"version":"` + strings.Repeat("x", maxAnswer) + `"}`,
		"truncated": `{"pid":1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "run")
			l, err := Listen(dir, testID)
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, answer) })}
			done := make(chan struct{})
			go func() { defer close(done); s.Serve(l.l) }()
			defer func() { s.Close(); <-done }()
			c := NewClient(dir, testID)
			if _, err := c.Mount(t.Context()); err == nil || !strings.Contains(err.Error(), c.socket) {
				t.Errorf("Mount: %v, want an error that names %s", err, c.socket)
			}
			if _, err := c.Files(t.Context(), func(File) error { return nil }); err == nil {
				t.Error("Files: no error")
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := NewClient(dir, testID).Status(t.Context())
	if !isGone(err) || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("got %v, want ENOENT", err)
	}
	if clients, _, err := Mounts(t.Context(), filepath.Join(dir, "none")); len(clients) != 0 || err != nil {
		t.Errorf("Mounts of no directory = %d, %v; want none", len(clients), err)
	}
}

// TestOneWalkAtATime: however many ask, BACKING is walked by one.
func TestOneWalkAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{census: make(chan struct{}, 1)}
		held, release := make(chan struct{}), make(chan struct{})
		go s.walk(t.Context(), func() error { close(held); <-release; return nil })
		<-held
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.walk(ctx, func() error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("second walk beside the first: %v, want to wait until the deadline", err)
		}
		close(release)
		synctest.Wait()
		if err := s.walk(t.Context(), func() error { return nil }); err != nil {
			t.Errorf("walk after the first: %v", err)
		}
	})
}
