package daemon

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmcryptfs/fs/moves"
	"vmcryptfs/fs/policy"
	"vmcryptfs/fs/wire"
)

// TestApplyPolicies: what lies in clear below a place is found, and moved.
func TestApplyPolicies(t *testing.T) {
	s := newSettingsSite(t)
	dir := filepath.Join(s.store.Path(), "vm1")
	s.must(os.Mkdir(dir, 0o755))
	text := bytes.Repeat([]byte("guest"), 1<<19)
	s.must(os.WriteFile(filepath.Join(dir, "a-flat.vmdk"), text, 0o600))
	_, err := s.ChangePolicies(t.Context(), setPolicy("encrypt"))
	s.must(err)
	var found []moves.Differ
	sum, err := s.CheckPolicies(t.Context(), moves.Check{}, func(d moves.Differ) error { found = append(found, d); return nil })
	if err != nil || len(found) != 1 || found[0].Path != "vm1/a-flat.vmdk" || sum.Bytes != int64(len(text)) {
		t.Errorf("%+v, %+v, %v", found, sum, err)
	}
	events := 0
	done, err := s.ApplyPolicies(t.Context(), moves.Request{Paths: wire.Paths{"vm1"}}, func(moves.Event) error { events++; return nil })
	if err != nil || !done.Complete || done.Moved != 1 || events == 0 {
		t.Errorf("%+v, %v, %d events", done, err, events)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a-flat.vmdk")); err != nil || bytes.Contains(got, []byte("guestguest")) {
		t.Errorf("a-flat.vmdk is in clear, %v", err)
	}
	list, err := s.Policies(t.Context())
	if err != nil || len(list.Places) != 1 || list.Places[0].Adopt {
		t.Errorf("%+v, %v", list, err)
	}
	if got := s.logged.String(); !strings.Contains(got, "moves are asked for") || !strings.Contains(got, "complete=true") {
		t.Errorf("log %q", got)
	}
	under, err := s.Moves(t.Context())
	if err != nil || len(under.Moves) != 0 {
		t.Errorf("%+v, %v", under, err)
	}
}

// TestMovesRefused: a mount that is read-only begins no move, and one that is locked has them wait.
func TestMovesRefused(t *testing.T) {
	s := newSettingsSite(t)
	_, err := s.Lock(t.Context())
	s.must(err)
	s.must(s.Unlock(t.Context()))
	if _, err := s.ChangeMoves(t.Context(), moves.Change{Do: moves.DoPause, Which: wire.Paths{"x"}}); !errors.Is(err, moves.ErrNoMove) {
		t.Errorf("%v, want %v", err, moves.ErrNoMove)
	}
	s.must(s.fs.SetReadOnly(true))
	if _, err := s.ApplyPolicies(t.Context(), moves.Request{}, func(moves.Event) error { return nil }); !errors.Is(err, unix.EROFS) {
		t.Errorf("%v, want %v", err, unix.EROFS)
	}
	if _, err := s.ChangeMoves(t.Context(), moves.Change{Do: moves.DoCancel}); !errors.Is(err, unix.EROFS) {
		t.Errorf("%v, want %v", err, unix.EROFS)
	}
	if _, err := s.ChangePolicies(t.Context(), policy.Request{Do: policy.DoSet}); err == nil {
		t.Error("a policy was changed")
	}
}
