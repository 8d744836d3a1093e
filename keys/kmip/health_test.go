package kmip

import (
	"testing"
	"testing/synctest"
	"time"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

// TestHealthInTime: a server's known condition, and since when.
func TestHealthInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var h health
		want := func(state string, since time.Time, ok bool) {
			t.Helper()
			got := h.now("kms:1")
			if got.State != state || !got.Since.Equal(since) || got.OK != ok {
				t.Errorf("%s since %v, ok %v; want %s since %v, ok %v", got.State, got.Since, got.OK, state, since, ok)
			}
		}
		want(keys.ServerUnknown, time.Time{}, false)
		began := time.Now()
		h.well(wire.Version{Major: 1, Minor: 4})
		for range 5 {
			time.Sleep(time.Minute)
			h.well(wire.Version{Major: 1, Minor: 4})
			want(keys.ServerOK, began, true)
		}
		last := time.Now()
		time.Sleep(staleAfter)
		want(keys.ServerOK, began, true)
		time.Sleep(time.Second)
		want(keys.ServerUnknown, last, true)

		died := time.Now()
		if !h.failing("connection refused", true) {
			t.Error("it is no news that it is down")
		}
		time.Sleep(time.Minute)
		if h.failing("connection refused", true) {
			t.Error("it is news that it is still down")
		}
		want(keys.ServerDown, died, false)
		if h.failing("General Failure", false) || h.suspect() {
			t.Error("a server that answers is suspect")
		}
		want(keys.ServerOK, time.Now(), true)
	})
}
