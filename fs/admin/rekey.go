package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"vmcryptfs/fs/rekey"
)

// progressEvery bounds how often progress is told.
const progressEvery = 100 * time.Millisecond

// RekeyRequest is a rekey.Request. Paths are bytes, in JSON base64, since names on Linux
// are.
type RekeyRequest struct {
	Paths [][]byte `json:"paths"`
	To    string   `json:"to,omitempty"`
	New   bool     `json:"new,omitempty"`
	Add   string   `json:"add,omitempty"`
	Drop  string   `json:"drop,omitempty"`
}

// RekeyLine is one line of the answer, of which one field is set; the last one has
// Summary, and Error if the rekey did not begin or did not go on.
type RekeyLine struct {
	Progress *RekeyProgress `json:"progress,omitempty"`
	Failure  *RekeyFailure  `json:"failure,omitempty"`
	Summary  *RekeySummary  `json:"summary,omitempty"`
	Error    *Error         `json:"error,omitempty"`
}

// RekeyProgress is a rekey.Event without its path. The first one comes before the first
// file: whoever asked for a new key knows it then, whatever ends the rekey later.
type RekeyProgress struct {
	KeyName       // the target; empty: lockers are dropped only
	Created bool  `json:"created"`
	Current bool  `json:"current"`
	Pass    int   `json:"pass"`
	Done    int64 `json:"done"`    // files looked at in this pass, clear ones too
	Total   int64 `json:"total"`   // files to be looked at in a pass; 0: not counted yet
	Files   int64 `json:"files"`   // encrypted files seen in this pass
	Rekeyed int64 `json:"rekeyed"` // in all passes
	Failed  int64 `json:"failed"`  // in this pass
}

// NewRekeyProgress is e for a peer.
func NewRekeyProgress(e rekey.Event) RekeyProgress {
	return RekeyProgress{
		KeyName: KeyName{e.Provider, e.KEK}, Created: e.Created, Current: e.Current, Pass: e.Pass,
		Done: e.Done, Total: e.Total, Files: e.Files, Rekeyed: e.Rekeyed, Failed: e.Failed,
	}
}

// RekeyStatus is a rekey under way, as Status tells it.
type RekeyStatus struct {
	Since  time.Time `json:"since"`
	Target *KeyName  `json:"target,omitempty"` // nil: lockers are dropped only
	Pass   int       `json:"pass"`
	Done   int64     `json:"done"`  // files looked at in this pass
	Total  int64     `json:"total"` // files in a pass; 0: not counted yet
	// Rekeyed counts files in all passes, Failed in this one.
	Rekeyed int64 `json:"rekeyed"`
	Failed  int64 `json:"failed"`
	Peer          // who asked for it
}

// RekeyFailure is a file or directory that was not done, and why.
type RekeyFailure struct {
	Path string `json:"path"` // below BACKING
	// Raw is the path's bytes when they are not UTF-8.
	Raw     []byte `json:"raw,omitempty"`
	Message string `json:"error"`
	Reason  string `json:"reason"`
}

// Err is why.
func (f *RekeyFailure) Err() error { return &Error{f.Message, f.Reason} }

// RekeySummary is a rekey.Summary.
type RekeySummary struct {
	KeyName
	Created  bool           `json:"created"`  // the KEK was made by this rekey
	Current  bool           `json:"current"`  // it became the datastore's current KEK
	Files    int64          `json:"files"`    // encrypted files in the last pass
	Already  int64          `json:"already"`  // with nothing to do in the first
	Rekeyed  int64          `json:"rekeyed"`  // rewritten
	Clear    int64          `json:"clear"`    // files that are not encrypted
	Passes   int            `json:"passes"`   // over everything asked for
	Complete bool           `json:"complete"` // nothing remains
	Failed   int64          `json:"failed"`   // what remains
	Failures []RekeyFailure `json:"failures"` // of that, the first 1000; in the stream lines of their own
}

// NewRekeySummary is s with its failures.
func NewRekeySummary(s rekey.Summary) RekeySummary {
	summary := RekeySummary{
		KeyName: KeyName{s.Provider, s.KEK}, Created: s.Created, Current: s.Current, Files: s.Files,
		Already: s.Already, Rekeyed: s.Rekeyed, Clear: s.Clear, Passes: s.Passes, Complete: s.Complete,
		Failed: s.Failed, Failures: []RekeyFailure{},
	}
	for _, f := range s.Failures {
		why := newError(f.Err)
		line := RekeyFailure{Path: f.Path, Message: why.Message, Reason: why.Reason}
		if !utf8.ValidString(f.Path) {
			line.Raw = []byte(f.Path)
		}
		summary.Failures = append(summary.Failures, line)
	}
	return summary
}

// Err is nil if the summary is Complete, else says so and why.
func (s *RekeySummary) Err() error {
	if s.Complete {
		return nil
	}
	e := &rekey.IncompleteError{Failed: s.Failed}
	for i := range s.Failures {
		e.Errs = append(e.Errs, s.Failures[i].Err())
	}
	return e
}

// rekey runs one rekey and streams how it goes. It ends when the peer leaves.
func (s *Server) rekey(w http.ResponseWriter, r *http.Request) {
	// To its end: only then does the server see a peer leave.
	text, err := io.ReadAll(r.Body)
	var in RekeyRequest
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields() // what asks for more than is understood is not half done
		err = d.Decode(&in)
	}
	if err != nil {
		answer(w, nil, fmt.Errorf("%w: %w", rekey.ErrRequest, err))
		return
	}
	select {
	case s.rekeys <- struct{}{}:
		defer func() { <-s.rekeys }()
	case <-time.After(rekeyWait):
		answer(w, nil, ErrRekeying)
		return
	case <-r.Context().Done():
		return
	}
	request := rekey.Request{To: in.To, New: in.New, Add: in.Add, Drop: in.Drop}
	for _, p := range in.Paths {
		request.Paths = append(request.Paths, string(p))
	}
	out := newLines(w)
	var told time.Time
	sum, err := s.source.Rekey(r.Context(), request, func(e rekey.Event) error {
		if time.Since(told) < progressEvery {
			return nil
		}
		told = time.Now()
		return out.progress(e)
	})
	if err := out.end(sum, err); err != nil {
		s.log.Debug("control socket: peer left a rekey", "error", err)
	}
}

// lines is a stream of JSON lines to a peer.
type lines struct {
	control *http.ResponseController
	out     *json.Encoder
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/jsonl")
	return &lines{http.NewResponseController(w), json.NewEncoder(w)}
}

// line sends one line now.
func (l *lines) line(v RekeyLine) error {
	if err := l.control.SetWriteDeadline(time.Now().Add(lineTimeout)); err != nil {
		return err
	}
	if err := l.out.Encode(v); err != nil {
		return err
	}
	return l.control.Flush()
}

// progress tells how far a rekey is.
func (l *lines) progress(e rekey.Event) error {
	p := NewRekeyProgress(e)
	return l.line(RekeyLine{Progress: &p})
}

// end sends the failures, then the summary.
func (l *lines) end(sum rekey.Summary, why error) error {
	summary := NewRekeySummary(sum)
	failures := summary.Failures
	summary.Failures = nil
	for i := range failures {
		if err := l.line(RekeyLine{Failure: &failures[i]}); err != nil {
			return err
		}
	}
	last := RekeyLine{Summary: &summary}
	if why != nil {
		last.Error = newError(why)
	}
	return l.line(last)
}

// errEnded: an unmount, or a crash, came first.
var errEnded = errors.New("the daemon ended before the rekey did")

// Rekey has the mount do r, and calls each now and then. The summary tells what was
// done, also beside an error.
func (c *Client) Rekey(ctx context.Context, r rekey.Request, each func(RekeyProgress)) (RekeySummary, error) {
	request := RekeyRequest{To: r.To, New: r.New, Add: r.Add, Drop: r.Drop}
	for _, p := range r.Paths {
		request.Paths = append(request.Paths, []byte(p))
	}
	text, err := json.Marshal(request)
	if err != nil {
		return RekeySummary{}, err
	}
	body, err := c.do(ctx, http.MethodPost, "/v1/rekey", bytes.NewReader(text))
	if err != nil {
		return RekeySummary{}, err
	}
	defer body.Close()
	failures := []RekeyFailure{}
	in := bufio.NewScanner(body)
	in.Buffer(nil, maxAnswer)
	for in.Scan() {
		var line RekeyLine
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			return RekeySummary{}, fmt.Errorf("control socket %s: %w", c.socket, err)
		}
		switch {
		case line.Progress != nil:
			each(*line.Progress)
		case line.Failure != nil:
			failures = append(failures, line.Failure.restored())
		case line.Summary != nil:
			line.Summary.Failures = failures
			if line.Error != nil {
				return *line.Summary, line.Error
			}
			return *line.Summary, nil
		}
	}
	if err := in.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return RekeySummary{}, fmt.Errorf("control socket %s: %w", c.socket, err)
	}
	return RekeySummary{}, errEnded
}

// restored has the path as it is on disk.
func (f *RekeyFailure) restored() RekeyFailure {
	r := *f
	if r.Raw != nil {
		r.Path = string(r.Raw)
	}
	return r
}
