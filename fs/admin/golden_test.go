package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/wire"
	"vmcryptfs/fs/work"
	"vmcryptfs/keys"
	"vmcryptfs/layout"
)

// The files in testdata were written by the program of commit 03c95b4, with other Go types
// (testdata/README). The tests prove that programs before and after the commit work together:
// after an upgrade, the daemon is older than the command until the next mount.

// wantGolden compares got with a file of testdata.
func wantGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", name, diff)
	}
}

// goldenSummary is the summary of the golden files, as given by a source.
func goldenSummary() rekey.Summary {
	return rekey.Summary{
		KeyName: wire.KeyName{Provider: "corp", Identifier: "k<2>"}, Created: true, Current: true,
		Files: 1, Already: 2, Rekeyed: 3, Clear: 4, Passes: 5,
		Rest: wire.Rest{Failed: 6, Failures: []wire.Failure{
			{Path: "vm<1>/a", Err: fmt.Errorf("unwrap: %w", keys.ErrNotFound)},
			{Path: "odd\xff/b\n", Err: fmt.Errorf("slot: %w", layout.ErrDamaged)},
			{Path: "c", Err: errors.New("disk on fire")},
		}},
	}
}

// goldenSource answers as the golden files do; a request with Drop fails.
func goldenSource() *fakeSource {
	return &fakeSource{
		rekey: func(_ context.Context, r rekey.Request, each func(rekey.Event) error) (rekey.Summary, error) {
			if r.Drop != "" {
				err := each(rekey.Event{Pass: 1})
				return rekey.Summary{Passes: 1}, errors.Join(err, fmt.Errorf("KMS <away>: %w", keys.ErrUnreachable))
			}
			err := each(rekey.Event{
				KeyName: wire.KeyName{Provider: "corp", Identifier: "k<2>"}, Created: true, Current: true,
				Path: "vm1/a", Pass: 2, Done: 3, Total: 4, Files: 5, Rekeyed: 6, Failed: 7,
			})
			return goldenSummary(), err
		},
		files: []File{
			{Path: "vm/a<1>.vmdk", Form: "encrypted", Rule: "disks", About: "disks"},
			{Path: "vm/\xff\n.log", Form: "clear", Rule: "logs", About: "logs"},
		},
		census: backing.Census{Encrypted: 1, Clear: 1, ByClass: map[string]int64{"disks": 1}},
	}
}

// ask makes a request with the bytes of body, and gives status, type and bytes of the answer.
func ask(t *testing.T, dir, method, path, body string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://vmcryptfs"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := NewClient(dir, testID).http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return append(fmt.Appendf(nil, "%d %s\n", resp.StatusCode, resp.Header.Get("Content-Type")), text...)
}

// An older client reads the answers of a present server.
func TestGoldenAnswers(t *testing.T) {
	t.Parallel()
	burning := goldenSource()
	burning.filesErr = errors.New("disk <on> fire")
	for _, c := range []struct {
		name         string
		source       *fakeSource
		method, path string
		body         string
	}{
		{"rekey.jsonl", goldenSource(), "POST", "/v1/rekey", `{"paths":["Lg=="],"new":true}`},
		{"rekey-error.jsonl", goldenSource(), "POST", "/v1/rekey", `{"paths":["Lg=="],"drop":"old"}`},
		{"rekey-refused.json", goldenSource(), "POST", "/v1/rekey", `{"paths":["Lg=="],"if":"idle"}`},
		{"files.jsonl", goldenSource(), "GET", "/v1/files", ""},
		{"files-error.jsonl", burning, "GET", "/v1/files", ""},
	} {
		dir, _ := serve(t, c.source)
		wantGolden(t, c.name, ask(t, dir, c.method, c.path, c.body))
	}
}

// A request refused because of a rekey is refused in the words of before.
func TestGoldenBusy(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	dir, _ := serve(t, &fakeSource{rekey: func(context.Context, rekey.Request, func(rekey.Event) error) (rekey.Summary, error) {
		close(begun)
		<-release
		return rekey.Summary{}, nil
	}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = NewClient(dir, testID).Rekey(t.Context(), rekey.Request{}, ignore)
	}()
	<-begun
	want := "503 application/json\n" + `{"error":"another rekey of this datastore is under way","reason":"rekeying"}` + "\n"
	for path, body := range map[string]string{"/v1/rekey": `{"paths":["Lg=="]}`, "/v1/remount": `{"options":["ro"]}`} {
		if got := string(ask(t, dir, "POST", path, body)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	close(release)
	<-done
}

// An older server understands the requests of a present client, and the client understands the
// answers.
func TestGoldenRequests(t *testing.T) {
	t.Parallel()
	_, answer, err := readGolden("rekey.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, testID+socketSuffix))
	if err != nil {
		t.Fatal(err)
	}
	bodies := make(chan []byte, 3)
	older := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		bodies <- text
		_, _ = w.Write(answer)
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = older.Serve(l) }()
	defer func() { older.Close(); <-served }()

	want := goldenSummary()
	want.Rest = want.AsTold()
	var all bytes.Buffer
	for _, r := range []rekey.Request{
		{Paths: []string{"vm1", "odd\xff"}, To: "k<2>", Add: "corp", Drop: "old"}, {Paths: []string{"."}, New: true}, {},
	} {
		var last rekey.Event
		sum, err := NewClient(dir, testID).Rekey(t.Context(), r, func(e rekey.Event) { last = e })
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, sum); diff != "" {
			t.Errorf("the older answer is read as (-want +got):\n%s", diff)
		}
		if last.Total != 4 || last.KeyName != want.KeyName || !last.Created {
			t.Errorf("the older progress is read as %+v", last)
		}
		all.Write(append(<-bodies, '\n'))
	}
	wantGolden(t, "rekey-requests.jsonl", all.Bytes())
}

// readGolden gives the first line of an answer in testdata, and the rest.
func readGolden(name string) (head string, body []byte, err error) {
	text, err := os.ReadFile(filepath.Join("testdata", name))
	first, body, _ := bytes.Cut(text, []byte("\n"))
	return string(first), body, err
}

// The requests of an older client are understood as before.
func TestGoldenRequestsRead(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/rekey-requests.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	want := []rekey.Request{
		{Paths: []string{"vm1", "odd\xff"}, To: "k<2>", Add: "corp", Drop: "old"}, {Paths: []string{"."}, New: true}, {},
	}
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		var got rekey.Request
		if err := decodeAll(strings.NewReader(line), &got); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Errorf("%s is read as (-want +got):\n%s", line, diff)
		}
	}
}

func TestGoldenStatus(t *testing.T) {
	t.Parallel()
	s := work.Status[rekey.Event]{
		Since: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), By: work.Peer{UID: 6, PID: 7},
		Last: rekey.Event{KeyName: corpK2, Created: true, Path: "x", Pass: 1, Done: 2, Total: 3, Files: 9, Rekeyed: 4, Failed: 5},
	}
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	err := lines.Encode(rekey.NewStatus(s))
	s.Last.KeyName = wire.KeyName{}
	if err := errors.Join(err, lines.Encode(rekey.NewStatus(s))); err != nil {
		t.Fatal(err)
	}
	wantGolden(t, "status-rekey.jsonl", out.Bytes())
}

// The output of rekey --json, with failures and without.
func TestGoldenSummaries(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	page := json.NewEncoder(&out)
	page.SetEscapeHTML(false)
	page.SetIndent("", "  ")
	sum := goldenSummary()
	for _, failures := range [][]wire.Failure{sum.Failures, nil} {
		sum.Failures = failures
		sum.Rest = sum.AsTold()
		if err := page.Encode(sum); err != nil {
			t.Fatal(err)
		}
	}
	wantGolden(t, "summaries.json", out.Bytes())
}
