package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"vmcryptfs/fs/wire"
	"vmcryptfs/fs/work"
)

// progressEvery bounds how often progress is sent.
const progressEvery = 100 * time.Millisecond

// Line is one line of the answer to a request for a long work, with P for progress and S for the
// summary. Exactly one field is set, with one exception: the last line has Summary, and also Error
// for a work that did not begin or was cut off. The failures of a summary precede the summary, one
// a line.
type Line[P, S any] struct {
	Progress *P            `json:"progress,omitempty"`
	Failure  *wire.Failure `json:"failure,omitempty"`
	Summary  *S            `json:"summary,omitempty"`
	Error    *wire.Error   `json:"error,omitempty"`
}

// summaryOf is a pointer to a summary that ends with a wire.Rest.
type summaryOf[S any] interface {
	*S
	Remaining() *wire.Rest
}

// longWork answers requests for a work of the given kind, done by do: R is the request, P the
// progress, S the summary. A peer that disconnects ends the work.
func longWork[R, P, S any, PS summaryOf[S]](s *Server, kind string, do func(context.Context, R, func(P) error) (S, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request R
		if err := decodeAll(r.Body, &request); err != nil {
			answer(w, nil, fmt.Errorf("%s: %w: %w", kind, wire.ErrRequest, err))
			return
		}
		peer, _ := PeerOf(r.Context()) // the server's
		err := work.Do(r.Context(), s.works, kind, peer, func(ctx context.Context, tell func(P)) {
			out := newLines(w)
			summary, err := do(ctx, request, progressTo[P, S](out, tell))
			if err := endWork[P, S, PS](out, &summary, err); err != nil {
				s.log.Debug("control socket: peer left a "+kind, "error", err)
			}
		})
		if err != nil {
			answer(w, nil, err)
		}
	}
}

// decodeAll reads body to the end, since only then the server notices that a peer disconnects. A
// request with an unknown field is refused as a whole.
func decodeAll(body io.Reader, v any) error {
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows the request")
	}
	return nil
}

// progressTo tells the runner of each progress, and the peer now and then.
func progressTo[P, S any](out *lines, tell func(P)) func(P) error {
	var told time.Time // when the peer was; zero: never
	return func(p P) error {
		tell(p)
		if time.Since(told) < progressEvery {
			return nil
		}
		told = time.Now()
		return out.lineNow(Line[P, S]{Progress: &p})
	}
}

// endWork sends the failures of a summary, then the summary without failures.
func endWork[P, S any, PS summaryOf[S]](out *lines, summary PS, why error) error {
	rest := summary.Remaining()
	failures := rest.Failures
	rest.Failures = nil
	for i := range failures {
		if err := out.lineNow(Line[P, S]{Failure: &failures[i]}); err != nil {
			return err
		}
	}
	last := Line[P, S]{Summary: summary}
	if why != nil {
		last.Error = wire.NewError(why)
	}
	return out.lineNow(last)
}

// follow makes the mount do a work of the given kind, and calls each with the progress that
// arrives. Beside an error the summary, with its failures, holds the files done so far.
func follow[P, S any, PS summaryOf[S]](ctx context.Context, c *Client, kind string, request any, each func(P)) (summary S, err error) {
	body, err := c.post(ctx, "/v1/"+kind, request)
	if err != nil {
		return summary, err
	}
	defer body.Close()
	failures := []wire.Failure{} // in JSON: [], not null
	var failed error
	err = readLines(body, func(line *Line[P, S]) (last bool, err error) {
		switch {
		case line.Progress != nil:
			each(*line.Progress)
		case line.Failure != nil:
			failures = append(failures, *line.Failure)
		case line.Summary != nil:
			summary, last = *line.Summary, true
			if line.Error != nil {
				failed = line.Error
			}
		}
		return last, nil
	})
	switch {
	case errors.Is(err, errShort), errors.Is(err, io.ErrUnexpectedEOF): // an unmount, or a crash, came first
		return summary, fmt.Errorf("the daemon ended before the %s did", kind)
	case err != nil:
		return summary, fmt.Errorf("control socket %s: %w", c.socket, err)
	}
	PS(&summary).Remaining().Failures = failures
	return summary, failed
}
