package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vmcryptfs/fs/moves"
	"vmcryptfs/fs/wire"
)

// fakeMoves are a fakeSource's.
type fakeMoves struct {
	differ  []moves.Differ
	checked moves.Checked
	apply   func(context.Context, moves.Request, func(moves.Event) error) (moves.Summary, error)
	list    moves.Changed
	asked   *moves.Change // the last one
	err     error
}

func (s *fakeSource) CheckPolicies(_ context.Context, _ moves.Check, each func(moves.Differ) error) (moves.Checked, error) {
	for _, d := range s.moves.differ {
		if err := each(d); err != nil {
			return moves.Checked{}, err
		}
	}
	return s.moves.checked, s.moves.err
}

func (s *fakeSource) ApplyPolicies(ctx context.Context, r moves.Request, each func(moves.Event) error) (moves.Summary, error) {
	return s.moves.apply(ctx, r, each)
}

func (s *fakeSource) Moves(context.Context) (moves.Changed, error) { return s.moves.list, s.moves.err }

func (s *fakeSource) ChangeMoves(_ context.Context, r moves.Change) (moves.Changed, error) {
	s.moves.asked = &r
	return s.moves.list, s.moves.err
}

func TestCheckPolicies(t *testing.T) {
	t.Parallel()
	want := []moves.Differ{
		{Path: "vm1/a", Form: "unencrypted", Wanted: "encrypted", Bytes: 7},
		{Path: "vm\xff/b", Raw: []byte("vm\xff/b"), Form: "encrypted", Wanted: "clear", KEK: &wire.KeyName{Provider: "corp", Identifier: "k"}},
	}
	source := &fakeSource{moves: fakeMoves{differ: want, checked: moves.Checked{Files: 2, Bytes: 7, Rest: wire.Rest{
		Failed: 1, Failures: []wire.Failure{{Path: "x", Err: unix.ENOSPC}}}}}}
	dir, _ := serve(t, source)
	c := NewClient(dir, testID)
	var got []moves.Differ
	sum, err := c.CheckPolicies(t.Context(), moves.Check{}, func(d moves.Differ) error { got = append(got, d); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(moves.Differ{})); diff != "" {
		t.Errorf("files differ (-sent +received):\n%s", diff)
	}
	if sum.Files != 2 || len(sum.Failures) != 1 || !errors.Is(sum.Failures[0].Err, unix.ENOSPC) {
		t.Errorf("summary %+v", sum)
	}
	source.moves.err = fmt.Errorf("%w: no", moves.ErrRequest)
	if _, err := c.CheckPolicies(t.Context(), moves.Check{}, func(moves.Differ) error { return nil }); !errors.Is(err, wire.ErrRequest) {
		t.Errorf("%v, want %v", err, wire.ErrRequest)
	}
}

// TestApplies: two requests go on side by side, and a peer that leaves ends its own.
func TestApplies(t *testing.T) {
	t.Parallel()
	both := make(chan struct{}, 2)
	source := &fakeSource{moves: fakeMoves{apply: func(ctx context.Context, r moves.Request, each func(moves.Event) error) (moves.Summary, error) {
		if err := each(moves.Event{Path: r.Paths[0], Kind: "encrypt"}); err != nil {
			return moves.Summary{}, err
		}
		both <- struct{}{}
		if r.Deep {
			return moves.Summary{Moved: 1, Rest: wire.Rest{Complete: true}}, nil
		}
		<-ctx.Done()
		return moves.Summary{}, ctx.Err()
	}}}
	dir, _ := serve(t, source)
	c := NewClient(dir, testID)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := c.ApplyPolicies(ctx, moves.Request{Paths: wire.Paths{"a"}}, func(moves.Event) {})
		left <- err
	}()
	<-both
	sum, err := c.ApplyPolicies(t.Context(), moves.Request{Paths: wire.Paths{"b"}, Deep: true}, func(moves.Event) {})
	if err != nil || sum.Moved != 1 || !sum.Complete {
		t.Errorf("%+v, %v", sum, err)
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the end of the context", err)
	}
}

func TestMoves(t *testing.T) {
	t.Parallel()
	list := moves.Changed{Moves: []moves.View{{ID: testID, Path: "vm1/a", Kind: "deep", State: moves.Refused, Why: "no space", Size: 9, Watermark: -1}}}
	source := &fakeSource{moves: fakeMoves{list: list}}
	dir, _ := serve(t, source)
	c := NewClient(dir, testID)
	got, err := c.Moves(t.Context())
	if diff := cmp.Diff(list, got); err != nil || diff != "" {
		t.Errorf("%v, list differs (-sent +received):\n%s", err, diff)
	}
	r := moves.Change{Do: moves.DoPause, Which: wire.Paths{"vm\xff"}}
	got, err = c.ChangeMoves(t.Context(), r)
	if diff := cmp.Diff(list, got); err != nil || diff != "" {
		t.Errorf("%v, result differs (-sent +received):\n%s", err, diff)
	}
	if diff := cmp.Diff(&r, source.moves.asked); diff != "" {
		t.Errorf("request differs (-want +asked):\n%s", diff)
	}
	source.moves.asked = nil
	for at, body := range map[string]string{"/v1/moves": `{"do":"pause","all":true}`, "/v1/apply": `{"paths":"x"}`, "/v1/check": `x`} {
		resp, err := c.do(t.Context(), http.MethodPost, at, strings.NewReader(body))
		if err == nil {
			resp.Close()
		}
		if !errors.Is(err, wire.ErrRequest) || source.moves.asked != nil {
			t.Errorf("%s: %v, want a bad request", at, err)
		}
	}
}
