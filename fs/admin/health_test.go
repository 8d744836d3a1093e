package admin

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The status code and the body of the answer agree.
func TestHealth(t *testing.T) {
	t.Parallel()
	m := Mount{Mountpoint: "/m", Backing: "/b"}
	well := Check{CheckMount, true, "answers"}
	for _, sent := range []Health{
		NewHealth(m, well),
		NewHealth(m, well, Check{CheckKeys, false, "locked"}, Check{CheckSpace, true, "1 GiB"}),
	} {
		dir, _ := serve(t, &fakeSource{health: sent})
		c := NewClient(dir, testID)
		resp, err := c.send(t.Context(), http.MethodGet, "/v1/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		want := map[bool]int{true: http.StatusOK, false: http.StatusServiceUnavailable}[len(sent.Checks) == 1]
		if resp.StatusCode != want || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%+v: status %d, %s; want %d", sent, resp.StatusCode, resp.Header.Get("Content-Type"), want)
		}
		got, err := c.Health(t.Context())
		if diff := cmp.Diff(sent, got); err != nil || diff != "" {
			t.Errorf("%v, differs (-sent +received):\n%s", err, diff)
		}
	}
}

// TestHealthOfOlderDaemon: the answer of a daemon without the request is an error, and not well.
func TestHealthOfOlderDaemon(t *testing.T) {
	t.Parallel()
	dir, _ := serve(t, &fakeSource{})
	if h, err := NewClient(dir, testID).Health(t.Context()); err == nil {
		t.Errorf("no checks: %+v and no error", h)
	}
}
