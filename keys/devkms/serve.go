package devkms

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/gemalto/kmip-go/kmip14"

	"vmcryptfs/keys/kmip/wire"
)

const (
	maxSessions   = 256
	handshakeTime = 10 * time.Second
	idleTime      = 15 * time.Minute // between two requests of a client
	messageTime   = 30 * time.Second // to take an answer
)

// serve answers one client's requests until the client leaves or sends nonsense, or the server
// closes the connection.
func (s *Server) serve(conn *tls.Conn) {
	log := s.log.With("client", conn.RemoteAddr().String())
	_ = conn.SetDeadline(time.Now().Add(handshakeTime))
	if err := conn.Handshake(); err != nil {
		log.Info("development KMS refuses a client", "error", err)
		return
	}
	for {
		_ = conn.SetDeadline(time.Now().Add(idleTime))
		request, err := wire.ReadFrame(conn, kmip14.TagRequestMessage)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				log.Info("development KMS ends a session", "error", err)
			}
			return
		}
		answer, err := s.answer(request)
		clear(request) // the request may register a key
		if err != nil {
			log.Error("development KMS cannot answer", "error", err)
			return
		}
		_ = conn.SetDeadline(time.Now().Add(messageTime))
		_, err = conn.Write(answer)
		clear(answer)
		if err != nil {
			log.Info("development KMS ends a session", "error", err)
			return
		}
	}
}
