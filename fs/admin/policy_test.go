package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vmcryptfs/fs/policy"
	"vmcryptfs/fs/wire"
)

// fakePolicies are a fakeSource's.
type fakePolicies struct {
	list   policy.Listing
	result policy.Result
	asked  *policy.Request // the last one
	err    error
}

func (s *fakeSource) Policies(context.Context) (policy.Listing, error) {
	return s.policies.list, s.policies.err
}

func (s *fakeSource) ChangePolicies(_ context.Context, r policy.Request) (policy.Result, error) {
	s.policies.asked = &r
	return s.policies.result, s.policies.err
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	list := policy.Listing{Serial: 7, Verified: true, Policies: []policy.Policy{{Name: "gold", Encrypt: true, KEK: "vm", Provider: "corp"}}}
	for i := range 5000 { // as many as a settings file holds
		list.Places = append(list.Places, policy.Place{
			Path: fmt.Sprintf("vm%d/%s", i, strings.Repeat("日", 40)), Policy: "gold", KEK: &wire.KeyName{Provider: "corp", Identifier: "k"},
			Encrypt: []string{}, Clear: []string{"*<>"}, Why: "its path leads to no directory",
		})
	}
	source := &fakeSource{policies: fakePolicies{list: list, result: policy.Result{Serial: 8, Changed: true, Places: []policy.Changed{{Path: "vm1"}}}}}
	dir, _ := serve(t, source)
	c := NewClient(dir, testID)
	got, err := c.Policies(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(list, got); diff != "" {
		t.Errorf("list differs (-sent +received):\n%s", diff)
	}
	r := policy.Request{Do: policy.DoSet, Name: "gold", KEK: policy.KeyNew, Path: []byte("vm\xff")}
	result, err := c.ChangePolicies(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(source.policies.result, result); diff != "" {
		t.Errorf("result differs (-sent +received):\n%s", diff)
	}
	if diff := cmp.Diff(&r, source.policies.asked); diff != "" {
		t.Errorf("request differs (-want +asked):\n%s", diff)
	}
	source.policies.err = fmt.Errorf("%w: no", policy.ErrRequest)
	if _, err := c.ChangePolicies(t.Context(), r); !errors.Is(err, wire.ErrRequest) {
		t.Errorf("%v, want %v", err, wire.ErrRequest)
	}
}

// TestPolicyRequests: what is not wholly understood changes nothing.
func TestPolicyRequests(t *testing.T) {
	t.Parallel()
	source := &fakeSource{}
	dir, _ := serve(t, source)
	c := NewClient(dir, testID)
	for _, body := range []string{"", "x", `{"do":"set","dir":"x"}`, `{"do":"set","path":"!"}`, `{"do":"set"} {}`} {
		resp, err := c.do(t.Context(), http.MethodPost, "/v1/policies", strings.NewReader(body))
		if err == nil {
			resp.Close()
		}
		if !errors.Is(err, wire.ErrRequest) || source.policies.asked != nil {
			t.Errorf("%s: %v, asked %+v, want a bad request", body, err, source.policies.asked)
		}
	}
}
