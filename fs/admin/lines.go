package admin

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// lines writes a stream of JSON lines to a peer.
type lines struct {
	control *http.ResponseController
	out     *json.Encoder
}

// newLines begins a stream as the answer; nothing is sent yet.
func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/jsonl")
	return &lines{http.NewResponseController(w), json.NewEncoder(w)}
}

// line writes v as one line, which waits for others to be sent with it. A peer that does
// not take lines is an error.
func (l *lines) line(v any) error {
	if err := l.control.SetWriteDeadline(time.Now().Add(lineTimeout)); err != nil {
		return err
	}
	return l.out.Encode(v)
}

// lineNow sends v as one line at once.
func (l *lines) lineNow(v any) error {
	if err := l.line(v); err != nil {
		return err
	}
	return l.control.Flush()
}

// errShort: a stream ended, as a whole, before its last line.
var errShort = errors.New("the stream ends early")

// readLines reads a stream of JSON lines, each decoded to an L of its own, until take says
// that one was the last. An error is take's, the connection's, errShort, or is about the
// line that is no L.
func readLines[L any](body io.Reader, take func(*L) (last bool, err error)) error {
	in := bufio.NewScanner(body)
	in.Buffer(nil, maxAnswer)
	for in.Scan() {
		line := new(L)
		if err := json.Unmarshal(in.Bytes(), line); err != nil {
			return err
		}
		if last, err := take(line); last || err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return err
	}
	return errShort
}
