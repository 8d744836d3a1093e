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
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"vmcryptfs/fs/backing"
	"vmcryptfs/fs/rekey"
	"vmcryptfs/fs/wire"
)

// maxAnswer bounds an answer in bytes, and one line of a stream.
const maxAnswer = 1 << 20

// Client speaks to one mount.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient speaks to the mount of datastore whose socket is in dir; no I/O.
func NewClient(dir, datastore string) *Client {
	return newClient(socketPath(dir, datastore))
}

func newClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{
		socket: socket,
		// A connection for each request: commands make one or two.
		http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}},
	}
}

// Mounts lists the live mounts with a socket in dir, sorted by mountpoint. A mount without an
// answer for a second is left out and named in the error.
func Mounts(ctx context.Context, dir string) (clients []*Client, mounts []Mount, err error) {
	sockets, err := filepath.Glob(filepath.Join(dir, "*"+socketSuffix))
	if err != nil {
		return nil, nil, err
	}
	type live struct {
		client *Client
		mount  Mount
	}
	var found []live
	var silent error
	for _, socket := range sockets {
		c := newClient(socket)
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		m, err := c.Mount(ctx)
		cancel()
		switch {
		case err == nil:
			found = append(found, live{c, m})
		case isGone(err): // stale: the daemon was killed
		default:
			silent = errors.Join(silent, err)
		}
	}
	slices.SortFunc(found, func(a, b live) int {
		return strings.Compare(a.mount.Mountpoint, b.mount.Mountpoint)
	})
	for _, f := range found {
		clients, mounts = append(clients, f.client), append(mounts, f.mount)
	}
	return clients, mounts, silent
}

// isGone reports whether err means a socket without a listener.
func isGone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}

// Mount asks the daemon to describe its mount.
func (c *Client) Mount(ctx context.Context) (m Mount, err error) {
	return m, c.call(ctx, http.MethodGet, "/v1/mount", &m)
}

// Status asks for the mount at a glance.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodGet, "/v1/status", &s)
}

// Lock wipes the mount's KEKs.
func (c *Client) Lock(ctx context.Context) (r LockResult, err error) {
	return r, c.call(ctx, http.MethodPost, "/v1/lock", &r)
}

// Unlock makes the mount fetch its current KEK. The error names the reason of a failure as a
// *wire.Error.
func (c *Client) Unlock(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/unlock", &struct{}{})
}

// Leave has the daemon end with the last user of the files, also where copies of the mount
// are left in other namespaces.
func (c *Client) Leave(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/leave", &struct{}{})
}

// Rekey makes the mount do r, and calls each with progress from time to time. Beside an error the
// Summary holds the files done so far.
func (c *Client) Rekey(ctx context.Context, r rekey.Request, each func(rekey.Event)) (rekey.Summary, error) {
	return follow[rekey.Event, rekey.Summary](ctx, c, "rekey", r, each)
}

// Files calls each for every regular file of the datastore and gives the counts. An error of each
// ends the list and is the error of Files.
func (c *Client) Files(ctx context.Context, each func(File) error) (census backing.Census, err error) {
	body, err := c.do(ctx, http.MethodGet, "/v1/files", nil)
	if err != nil {
		return backing.Census{}, err
	}
	defer body.Close()
	type line struct {
		File
		Summary
	}
	var refused error // the error of each, unchanged
	err = readLines(body, func(l *line) (last bool, err error) {
		switch {
		case l.Error != "":
			refused = fmt.Errorf("list of files: %s", l.Error)
			return true, nil
		case l.Census != nil:
			census = *l.Census
			return true, nil
		}
		if l.Raw != nil {
			l.Path = string(l.Raw)
		}
		refused = each(l.File)
		return refused != nil, nil
	})
	switch {
	case err == nil:
		return census, refused
	case errors.Is(err, errShort):
		return backing.Census{}, fmt.Errorf("control socket %s: the list of files ends early", c.socket)
	}
	return backing.Census{}, fmt.Errorf("control socket %s: %w", c.socket, plain(err))
}

// call makes one request and decodes the answer into v.
func (c *Client) call(ctx context.Context, method, path string, v any) error {
	body, err := c.do(ctx, method, path, nil)
	if err != nil {
		return err
	}
	return c.read(body, v)
}

// post makes one request with a body of its own, as JSON. The caller closes the answer.
func (c *Client) post(ctx context.Context, path string, request any) (io.ReadCloser, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	return c.do(ctx, http.MethodPost, path, bytes.NewReader(text))
}

// read decodes the answer body into v, and closes body.
func (c *Client) read(body io.ReadCloser, v any) error { return c.readUpTo(maxAnswer, body, v) }

// readUpTo is read of an answer of at most limit bytes.
func (c *Client) readUpTo(limit int64, body io.ReadCloser, v any) error {
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, limit)).Decode(v); err != nil {
		return fmt.Errorf("control socket %s: its answer is not understood: %w", c.socket, plain(err))
	}
	return nil
}

// send makes one request with body, or without one for nil. The caller closes the body of the
// response.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://vmcryptfs"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", c.socket, plain(err))
	}
	return resp, nil
}

// do sends a request. Every answer but 200 is an error: a refusal of the daemon as a *wire.Error.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	refusal := &wire.Error{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(refusal); err != nil || refusal.Message == "" {
		return nil, fmt.Errorf("control socket %s: the daemon does not know %s, it is of another version; mount again by the new one", c.socket, path)
	}
	return nil, refusal
}

// errNoAnswer: the daemon ended, or turned us away.
var errNoAnswer = errors.New("the daemon ended before it answered")

// plain removes the words of HTTP from an error, since a socket of this host has no use for them.
func plain(err error) error {
	if request, ok := errors.AsType[*url.Error](err); ok {
		err = request.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return errNoAnswer
	}
	return err
}
