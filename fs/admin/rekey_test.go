package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/wire"
	"vmcryptfs/fs/work"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

var corpK2 = wire.KeyName{Provider: "corp", Identifier: "k2"}

func ignore(rekey.Event) {}

func TestRekey(t *testing.T) {
	t.Parallel()
	asked := rekey.Request{Paths: []string{"vm1", "odd\xff"}, To: "k2", Add: "corp", Drop: "old"}
	source := &fakeSource{rekey: func(_ context.Context, r rekey.Request, each func(rekey.Event) error) (rekey.Summary, error) {
		if diff := cmp.Diff(asked, r); diff != "" {
			t.Error(diff)
		}
		for i := range 3 {
			if err := each(rekey.Event{Path: "x", Pass: 1, Files: int64(i + 1), Rekeyed: int64(i)}); err != nil {
				t.Error(err)
			}
		}
		return rekey.Summary{KeyName: corpK2, Files: 3, Rekeyed: 1, Clear: 7, Passes: 2, Rest: wire.Rest{Failed: 2, Failures: []wire.Failure{
			{Path: "vm1/a", Err: fmt.Errorf("unwrap: %w", keys.ErrNotFound)},
			{Path: "odd\xff/b", Err: fmt.Errorf("slot: %w", layout.ErrDamaged)},
		}}}, nil
	}}
	dir, _ := serve(t, source)
	var progress []rekey.Event
	sum, err := NewClient(dir, testID).Rekey(t.Context(), asked, func(p rekey.Event) { progress = append(progress, p) })
	if err != nil {
		t.Fatal(err)
	}
	want := rekey.Summary{KeyName: corpK2, Files: 3, Rekeyed: 1, Clear: 7, Passes: 2, Rest: wire.Rest{Failed: 2, Failures: []wire.Failure{
		{Path: "vm1/a", Err: &wire.Error{Message: "unwrap: key not available: missing in KMS", Reason: "missing_in_kms"}},
		{Path: "odd\xff/b", Err: &wire.Error{Message: "slot: header is damaged", Reason: "damaged"}},
	}}}
	if diff := cmp.Diff(want, sum); diff != "" {
		t.Error(diff)
	}
	if err := sum.Err(); !errors.Is(err, keys.ErrNotFound) || !errors.Is(err, layout.ErrDamaged) || errors.Is(err, keys.ErrLocked) {
		t.Errorf("error of the summary: %v", err)
	}
	if len(progress) == 0 || progress[0].Files != 1 || progress[0].Path != "" {
		t.Errorf("progress %+v", progress)
	}
}

// The error that ended a rekey keeps its identity, and the summary holds the files done before.
func TestRekeyError(t *testing.T) {
	t.Parallel()
	for sent, want := range map[error]error{
		keys.ErrKeyState: keys.ErrKeyState, keys.ErrSeal: keys.ErrSeal, keys.ErrNoProvider: keys.ErrNoProvider,
		rekey.ErrRequest: wire.ErrRequest, layout.ErrUnsupported: layout.ErrUnsupported,
	} {
		source := &fakeSource{rekey: func(context.Context, rekey.Request, func(rekey.Event) error) (rekey.Summary, error) {
			return rekey.Summary{KeyName: corpK2, Created: true}, fmt.Errorf("key k2: %w", sent)
		}}
		dir, _ := serve(t, source)
		sum, err := NewClient(dir, testID).Rekey(t.Context(), rekey.Request{}, ignore)
		if !errors.Is(err, want) || !sum.Created || sum.Identifier != "k2" {
			t.Errorf("%+v, error %v, want %v", sum, err, want)
		}
	}
}

// One at a time, and one whose client is gone ends.
func TestRekeyAlone(t *testing.T) {
	t.Parallel()
	begun, ended := make(chan struct{}), make(chan struct{})
	source := &fakeSource{rekey: func(ctx context.Context, _ rekey.Request, _ func(rekey.Event) error) (rekey.Summary, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return rekey.Summary{}, ctx.Err()
	}}
	dir, _ := serve(t, source)
	client := NewClient(dir, testID)
	ctx, leave := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := client.Rekey(ctx, rekey.Request{Paths: []string{"."}}, ignore)
		first <- err
	}()
	<-begun
	_, err := client.Rekey(t.Context(), rekey.Request{Paths: []string{"."}}, ignore)
	if !errors.Is(err, work.ErrBusy) {
		t.Errorf("second rekey: %v", err)
	}
	leave()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("first rekey: %v", err)
	}
	<-ended
}

// A command right after ^C comes while the daemon still finishes a file, and waits for the daemon.
func TestRekeyAfterOneThatEnds(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}, 2), make(chan struct{})
	source := &fakeSource{rekey: func(ctx context.Context, _ rekey.Request, _ func(rekey.Event) error) (rekey.Summary, error) {
		begun <- struct{}{}
		<-release
		return rekey.Summary{Rest: wire.Rest{Complete: true}}, nil
	}}
	dir, _ := serve(t, source)
	client := NewClient(dir, testID)
	both := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := client.Rekey(t.Context(), rekey.Request{Paths: []string{"."}}, ignore)
			both <- err
		}()
	}
	<-begun
	close(release)
	for range 2 {
		if err := <-both; err != nil {
			t.Error(err)
		}
	}
}

// An unmount ends a rekey: the command reports the unmount, and the remedy.
func TestRekeyOfDaemonThatEnds(t *testing.T) {
	t.Parallel()
	begun, told := make(chan struct{}), make(chan struct{})
	source := &fakeSource{rekey: func(_ context.Context, _ rekey.Request, each func(rekey.Event) error) (rekey.Summary, error) {
		err := each(rekey.Event{Files: 1})
		close(begun)
		<-told // no summary arrives earlier
		return rekey.Summary{}, err
	}}
	dir, server := serve(t, source)
	done := make(chan error, 1)
	go func() {
		_, err := NewClient(dir, testID).Rekey(t.Context(), rekey.Request{Paths: []string{"."}}, ignore)
		done <- err
	}()
	<-begun
	closed := make(chan error, 1)
	go func() { closed <- server.Close() }()
	if err := <-done; err == nil || err.Error() != "the daemon ended before the rekey did" {
		t.Errorf("error %v, want that the daemon ended", err)
	}
	close(told)
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestRekeyBadRequest(t *testing.T) {
	t.Parallel()
	dir, _ := serve(t, &fakeSource{})
	client := NewClient(dir, testID)
	for _, body := range []string{"", "{", `{"paths": [1]}`, `{"paths": ["Lg=="], "if": "idle"}`, `{"paths": ["` + strings.Repeat("x", maxBody) + `"]}`} {
		_, err := client.do(t.Context(), http.MethodPost, "/v1/rekey", strings.NewReader(body))
		if !errors.Is(err, wire.ErrRequest) || !strings.HasPrefix(err.Error(), rekey.ErrRequest.Error()) {
			t.Errorf("%.20q: %v", body, err)
		}
	}
}

// Close waits for the goroutine of a connection whose request was too long. Not parallel: others'
// goroutines come and go.
func TestCloseWaitsForConnections(t *testing.T) {
	before := goleak.IgnoreCurrent()
	dir, server := serve(t, &fakeSource{})
	body := strings.NewReader(`"` + strings.Repeat("x", maxBody) + `"`)
	if _, err := NewClient(dir, testID).do(t.Context(), http.MethodPost, "/v1/rekey", body); !errors.Is(err, wire.ErrRequest) {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
}

// The daemon sees every progress of a rekey, sent or not, and the peer of the rekey. A cause given
// by the daemon ends the rekey and reaches the client.
func TestRekeyIsSeenAndStopped(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run")
	l, err := Listen(dir, testID)
	if err != nil {
		t.Fatal(err)
	}
	var works work.Runner
	told := make(chan struct{})
	s := Serve(l, &fakeSource{rekey: func(ctx context.Context, _ rekey.Request, each func(rekey.Event) error) (rekey.Summary, error) {
		for done := range int64(3) {
			if err := each(rekey.Event{KeyName: corpK2, Pass: 1, Done: done}); err != nil {
				t.Error(err)
			}
		}
		close(told)
		<-ctx.Done()
		return rekey.Summary{Rekeyed: 7}, work.Cause(ctx, ctx.Err())
	}}, &works, discard)
	defer s.Close()
	ended := make(chan error, 1)
	go func() {
		sum, err := NewClient(dir, testID).Rekey(t.Context(), rekey.Request{Paths: []string{"."}}, ignore)
		if sum.Rekeyed != 7 {
			t.Errorf("summary %+v", sum)
		}
		ended <- err
	}()
	<-told
	now, ok := work.Now[rekey.Event](&works)
	if by := (work.Peer{UID: uint32(os.Geteuid()), PID: int32(os.Getpid())}); !ok || now.Last.Done != 2 || now.By != by {
		t.Errorf("seen: %+v, %t", now, ok)
	}
	if err := works.Stop(t.Context(), fmt.Errorf("made read-only meanwhile: %w", unix.EROFS), time.Minute); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, unix.EROFS) || err.Error() != "made read-only meanwhile: read-only file system" {
		t.Errorf("the client is told %v", err)
	}
	if s, ok := work.Now[rekey.Event](&works); ok {
		t.Errorf("seen after its end: %+v", s)
	}
}
