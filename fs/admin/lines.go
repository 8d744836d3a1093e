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

// line writes v as one line, sent together with the lines that follow. A peer that accepts no
// lines causes an error.
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

// errShort says that a stream ended between two lines, before its last line.
var errShort = errors.New("the stream ends early")

// readLines reads a stream of JSON lines and decodes each into a new L, until take reports the
// last line. The error is one of take or of the connection, errShort, or the error of decoding a
// line.
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
