package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"vmcryptfs/fs/datastore"
	"vmcryptfs/fs/wire"
	"vmcryptfs/layout"
)

// fakeSettings are a fakeSource's.
type fakeSettings struct {
	now   Settings
	asked *SettingsRequest // the last one
	err   error
}

func (s *fakeSource) Settings(context.Context) (Settings, error) {
	return s.settings.now, s.settings.err
}

func (s *fakeSource) ChangeSettings(_ context.Context, r SettingsRequest) (uint64, error) {
	s.settings.asked = &r
	return r.Serial + 1, s.settings.err
}

var someSettings = layout.Settings{
	Format: 1, ID: layout.FileID{0: 7, 6: 0x40, 8: 0x80}, Provider: "corp", KEK: "85", Serial: 1<<63 - 2,
	Encrypt: []string{"*.\u65e5", `"quoted"`}, Clear: []string{},
}

func TestSettings(t *testing.T) {
	t.Parallel()
	source := &fakeSource{settings: fakeSettings{now: NewSettings(&someSettings)}}
	dir, _ := serve(t, source)
	c := NewClient(dir, testID)
	got, err := c.Settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&someSettings, got); diff != "" {
		t.Errorf("settings differ (-sent +received):\n%s", diff)
	}
	serial, err := c.ChangeSettings(t.Context(), got)
	if err != nil || serial != someSettings.Serial+1 {
		t.Errorf("ChangeSettings = %d, %v; want %d", serial, err, someSettings.Serial+1)
	}
	want := &SettingsRequest{Serial: someSettings.Serial, Encrypt: someSettings.Encrypt, Clear: []string{}}
	if diff := cmp.Diff(want, source.settings.asked); diff != "" {
		t.Errorf("request differs (-want +asked):\n%s", diff)
	}
	source.settings.err = datastore.ErrChanged
	if _, err := c.ChangeSettings(t.Context(), got); !errors.Is(err, datastore.ErrChanged) {
		t.Errorf("%v, want %v", err, datastore.ErrChanged)
	}
	if _, err := c.Settings(t.Context()); !errors.Is(err, datastore.ErrChanged) {
		t.Errorf("%v, want %v", err, datastore.ErrChanged)
	}
}

// TestSettingsNotUnderstood: settings that this version would not seal are no settings.
func TestSettingsNotUnderstood(t *testing.T) {
	t.Parallel()
	for i, change := range []func(*Settings){
		func(s *Settings) { s.ID = "x" },
		func(s *Settings) { s.Format = 2 },
		func(s *Settings) { s.Serial = 0 },
		func(s *Settings) { s.Clear = []string{"a/b"} },
	} {
		s := NewSettings(&someSettings)
		change(&s)
		dir, server := serve(t, &fakeSource{settings: fakeSettings{now: s}})
		if got, err := NewClient(dir, testID).Settings(t.Context()); err == nil || !strings.Contains(err.Error(), "not understood") {
			t.Errorf("%d: %+v, %v, want that it is not understood", i, got, err)
		}
		server.Close()
	}
}

// TestSettingsRequests: what is not wholly understood changes nothing.
func TestSettingsRequests(t *testing.T) {
	t.Parallel()
	source := &fakeSource{}
	dir, _ := serve(t, source)
	c := NewClient(dir, testID)
	for name, body := range map[string]string{
		"nothing":              "",
		"not JSON":             "x",
		"an unknown field":     `{"serial":1,"encrypt":[],"clear":[],"kek":"2"}`,
		"encrypt is not there": `{"serial":1,"clear":[]}`,
		"clear is null":        `{"serial":1,"encrypt":[],"clear":null}`,
		"a negative serial":    `{"serial":-1,"encrypt":[],"clear":[]}`,
		"an open end":          `{"serial":1,"encrypt":[],"clear":[]`,
	} {
		resp, err := c.do(t.Context(), http.MethodPost, "/v1/settings", strings.NewReader(body))
		if err == nil {
			resp.Close()
		}
		if !errors.Is(err, wire.ErrRequest) || source.settings.asked != nil {
			t.Errorf("%s: %v, asked %+v, want a bad request", name, err, source.settings.asked)
		}
	}
	// Not by a connection, which the server would keep a moment after a body that is not read.
	long := `{"serial":1,"encrypt":["` + strings.Repeat("x", maxSettingsBody) + `"],"clear":[]}`
	answered := httptest.NewRecorder()
	(&Server{source: source}).changeSettings(answered, httptest.NewRequest(http.MethodPost, "/v1/settings", strings.NewReader(long)))
	if answered.Code != http.StatusServiceUnavailable || source.settings.asked != nil {
		t.Errorf("too long: answer %d, asked %+v", answered.Code, source.settings.asked)
	}
	// White space after the object is nothing.
	resp, err := c.do(t.Context(), http.MethodPost, "/v1/settings", strings.NewReader(`{"serial":4,"encrypt":[],"clear":["*.iso"]}`+" \n"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Close()
	if text, err := io.ReadAll(resp); err != nil || string(text) != `{"serial":5}`+"\n" {
		t.Errorf("answer %q, %v", text, err)
	}
}

// TestSettingsOlderDaemon: a daemon that does not know the request changes nothing, and says so
// before an editor opens.
func TestSettingsOlderDaemon(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run")
	l, err := Listen(dir, testID)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.NewServeMux()}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l.l) }()
	defer func() { s.Close(); <-done }()
	c := NewClient(dir, testID)
	_, settingsErr := c.Settings(t.Context())
	_, changeErr := c.ChangeSettings(t.Context(), &someSettings)
	for _, err := range []error{settingsErr, changeErr} {
		if err == nil || !strings.Contains(err.Error(), "does not know /v1/settings, it is of another version; mount again by the new one") {
			t.Errorf("%v, want that the daemon does not know it", err)
		}
	}
}
