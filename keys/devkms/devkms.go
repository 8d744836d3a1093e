// Package devkms is the embedded development KMS: a small KMIP server over a file
// store, with its own CA, on loopback only. Its keys lie on this host in clear.
package devkms

import (
	"context"
	"log/slog"
)

// ProviderName is the provider in the kms.toml that Start writes.
const ProviderName = "dev"

// Server is a running development KMS.
type Server struct{}

// Start keeps keys in dir, makes there what is missing (ca.pem, client.pem,
// client.key, kms.toml) and serves on listen, a loopback address; empty: 127.0.0.1
// with a free port, written to kms.toml.
func Start(ctx context.Context, dir, listen string, log *slog.Logger) (*Server, error) {
	panic("devkms: not built yet")
}

// Addr is the address it listens on.
func (s *Server) Addr() string { panic("devkms: not built yet") }

// ConfigPath is the kms.toml for clients.
func (s *Server) ConfigPath() string { panic("devkms: not built yet") }

// Close ends all sessions and waits for them; idempotent.
func (s *Server) Close() error { panic("devkms: not built yet") }
