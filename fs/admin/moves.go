package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"vmcryptfs/fs/moves"
	"vmcryptfs/fs/wire"
)

// maxMoves bounds an answer about moves in bytes: at most layout.MaxMoves of them, each with a path in
// JSON and the error of a refusal.
const maxMoves = 16 << 20

// CheckPolicies has the mount look for files that differ from what their places want, and calls each
// with every one of them. An error of each ends the check.
func (c *Client) CheckPolicies(ctx context.Context, r moves.Check, each func(moves.Differ) error) (sum moves.Checked, err error) {
	body, err := c.post(ctx, "/v1/check", r)
	if err != nil {
		return sum, err
	}
	defer body.Close()
	failures := []wire.Failure{} // in JSON: [], not null
	var failed error
	err = readLines(body, func(line *checkLine) (last bool, err error) {
		switch {
		case line.Differ != nil:
			if line.Differ.Raw != nil {
				line.Differ.Path = string(line.Differ.Raw)
			}
			return false, each(*line.Differ)
		case line.Failure != nil:
			failures = append(failures, *line.Failure)
		case line.Summary != nil:
			sum, last = *line.Summary, true
			if line.Error != nil {
				failed = line.Error
			}
		}
		return last, nil
	})
	switch {
	case errors.Is(err, errShort), errors.Is(err, io.ErrUnexpectedEOF):
		return sum, errors.New("the daemon ended before the check did")
	case err != nil:
		return sum, fmt.Errorf("control socket %s: %w", c.socket, err)
	}
	sum.Failures = failures
	return sum, failed
}

// checkLine is one line of the answer to a check: a Line with a file that differs for progress.
type checkLine struct {
	Differ *moves.Differ `json:"differ,omitempty"`
	Line[struct{}, moves.Checked]
}

// ApplyPolicies has the mount do r, and calls each with the progress that arrives. The end of ctx pauses
// what r began. Beside an error the summary holds what was moved so far.
func (c *Client) ApplyPolicies(ctx context.Context, r moves.Request, each func(moves.Event)) (moves.Summary, error) {
	return follow[moves.Event, moves.Summary](ctx, c, "apply", r, each)
}

// Moves asks for the moves under way.
func (c *Client) Moves(ctx context.Context) (list moves.Changed, err error) {
	body, err := c.do(ctx, http.MethodGet, "/v1/moves", nil)
	if err != nil {
		return list, err
	}
	return list, c.readUpTo(maxMoves, body, &list)
}

// ChangeMoves has the mount do r. Errors are those of moves.Manager.Do, and unix.EROFS.
func (c *Client) ChangeMoves(ctx context.Context, r moves.Change) (result moves.Changed, err error) {
	body, err := c.post(ctx, "/v1/moves", r)
	if err != nil {
		return result, err
	}
	return result, c.readUpTo(maxMoves, body, &result)
}

// check streams: a datastore may hold more files that differ than an answer should.
func (s *Server) check(w http.ResponseWriter, r *http.Request) {
	var request moves.Check
	if err := decodeAll(r.Body, &request); err != nil {
		answer(w, nil, fmt.Errorf("check: %w: %w", wire.ErrRequest, err))
		return
	}
	out := newLines(w)
	sum, err := s.source.CheckPolicies(r.Context(), request, func(d moves.Differ) error {
		return out.line(checkLine{Differ: &d})
	})
	if err := endWork[struct{}, moves.Checked](out, &sum, err); err != nil {
		s.log.Debug("control socket: peer left a check", "error", err)
	}
}

// apply is longWork beside other works: several requests for moves go on side by side.
func (s *Server) apply(w http.ResponseWriter, r *http.Request) {
	var request moves.Request
	if err := decodeAll(r.Body, &request); err != nil {
		answer(w, nil, fmt.Errorf("apply: %w: %w", wire.ErrRequest, err))
		return
	}
	out := newLines(w)
	sum, err := s.source.ApplyPolicies(r.Context(), request, progressTo[moves.Event, moves.Summary](out, func(moves.Event) {}))
	if err := endWork[moves.Event, moves.Summary](out, &sum, err); err != nil {
		s.log.Debug("control socket: peer left an apply", "error", err)
	}
}

func (s *Server) moves(w http.ResponseWriter, r *http.Request) {
	list, err := s.source.Moves(r.Context())
	answer(w, list, err)
}

func (s *Server) changeMoves(w http.ResponseWriter, r *http.Request) {
	var in moves.Change
	if err := decodeAll(r.Body, &in); err != nil {
		answer(w, nil, fmt.Errorf("moves: %w: %w", wire.ErrRequest, err))
		return
	}
	result, err := s.source.ChangeMoves(r.Context(), in)
	answer(w, result, err)
}
