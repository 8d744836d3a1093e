package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"vmcryptfs/fs/wire"
	"vmcryptfs/fs/work"
)

const (
	// maxBody bounds a request's body in bytes: that of a rekey has as many paths as a command
	// line has.
	maxBody = 4 << 20
	// readTimeout bounds the arrival of a request.
	readTimeout = 5 * time.Second
	// lineTimeout bounds the wait for a peer to accept a line of a stream.
	lineTimeout = 10 * time.Second
	// answerTimeout bounds every other request, including those during which a KMS hangs.
	answerTimeout = 30 * time.Second
)

// Listener is a claimed socket without a server.
type Listener struct{ l *net.UnixListener }

// Listen claims the socket of datastore in dir, and makes dir where needed. While a live mount has
// the socket, the error is ErrInUse. Either Serve or Close ends the Listener.
func Listen(dir, datastore string) (*Listener, error) {
	l, err := claim(dir, datastore)
	if err != nil {
		return nil, err
	}
	return &Listener{l}, nil
}

// Close gives up the socket; idempotent, and nothing after Serve.
func (l *Listener) Close() error {
	if l.l == nil {
		return nil
	}
	err := l.l.Close()
	l.l = nil
	return err
}

// Server answers on a control socket until Close.
type Server struct {
	http   *http.Server
	source Source
	log    *slog.Logger
	cancel context.CancelFunc
	done   chan struct{}  // closed when the accept loop has ended
	peers  sync.WaitGroup // connections whose goroutines, and so their requests, have not ended
	census chan struct{}  // one token: one list of files at a time
	works  *work.Runner   // the datastore's
}

// Serve answers requests on l for source, and owns l from then on. works runs the long works, one
// at a time.
func Serve(l *Listener, source Source, works *work.Runner, log *slog.Logger) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		source: source,
		log:    log,
		cancel: cancel,
		done:   make(chan struct{}),
		census: make(chan struct{}, 1),
		works:  works,
	}
	s.http = &http.Server{
		Handler:        s.routes(),
		ReadTimeout:    readTimeout,
		IdleTimeout:    answerTimeout,
		MaxHeaderBytes: 16 << 10,
		ConnContext:    withPeer,
		ConnState:      s.count,
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	socket := l.l
	l.l = nil
	go func() {
		defer close(s.done)
		if err := s.http.Serve(peerListener{socket}); !errors.Is(err, http.ErrServerClosed) {
			log.Error("control socket ended", "error", err)
		}
	}()
	return s
}

// Close ends every request, removes the socket and waits; idempotent.
func (s *Server) Close() error {
	s.cancel()
	err := s.http.Close()
	<-s.done
	s.peers.Wait()
	return err
}

// count counts the connections. The goroutine of a connection may outlive its last request: after a
// body that is too long, net/http leaves the peer half a second to read the answer.
func (s *Server) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.peers.Add(1)
	case http.StateClosed:
		s.peers.Done()
	}
}

// routes gives the handlers of all requests. Answers in the form of a stream have no limit of
// time.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/mount", limited(func(w http.ResponseWriter, r *http.Request) {
		answer(w, s.source.Mount(), nil)
	}))
	mux.HandleFunc("GET /v1/status", limited(func(w http.ResponseWriter, r *http.Request) {
		status, err := s.source.Status(r.Context())
		answer(w, status, err)
	}))
	mux.HandleFunc("GET /v1/health", limited(s.health))
	mux.HandleFunc("GET /v1/files", s.files)
	mux.HandleFunc("POST /v1/rekey", longWork(s, "rekey", s.source.Rekey))
	mux.HandleFunc("POST /v1/lock", limited(func(w http.ResponseWriter, r *http.Request) {
		result, err := s.source.Lock(r.Context())
		answer(w, result, err)
	}))
	mux.HandleFunc("POST /v1/unlock", limited(func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, s.source.Unlock(r.Context()))
	}))
	mux.HandleFunc("POST /v1/remount", limited(s.remount))
	mux.HandleFunc("GET /v1/settings", limited(s.settings))
	mux.HandleFunc("POST /v1/settings", limited(s.changeSettings))
	mux.HandleFunc("GET /v1/policies", limited(s.policies))
	mux.HandleFunc("POST /v1/policies", s.changePolicies) // a place is looked through, and keys are made
	mux.HandleFunc("POST /v1/check", s.check)
	mux.HandleFunc("POST /v1/apply", s.apply)
	mux.HandleFunc("GET /v1/moves", limited(s.moves))
	mux.HandleFunc("POST /v1/moves", s.changeMoves) // files that move are looked for
	mux.HandleFunc("POST /v1/leave", limited(func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, s.source.Leave(r.Context()))
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

// limited has the context of a request end after answerTimeout.
func limited(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
		defer cancel()
		h(w, r.WithContext(ctx))
	}
}

// walk runs f when no other walk over the datastore is under way.
func (s *Server) walk(ctx context.Context, f func() error) error {
	select {
	case s.census <- struct{}{}:
		defer func() { <-s.census }()
		return f()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// files streams: a datastore may hold more files than an answer should.
func (s *Server) files(w http.ResponseWriter, r *http.Request) {
	out := newLines(w)
	var summary Summary
	err := s.walk(r.Context(), func() error {
		census, err := s.source.Files(r.Context(), func(f File) error {
			if !utf8.ValidString(f.Path) {
				f.Raw = []byte(f.Path)
			}
			return out.line(f)
		})
		summary.Census = &census
		return err
	})
	if err != nil {
		summary = Summary{Error: err.Error()}
	}
	if err := out.line(summary); err != nil {
		s.log.Debug("control socket: peer left a list of files", "error", err)
	}
}

// answer writes v, or err.
func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		v = wire.NewError(err)
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// An error here means that the peer has gone.
	_ = json.NewEncoder(w).Encode(v)
}
