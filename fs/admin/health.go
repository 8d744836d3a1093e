package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// The checks of a mount's health, by Check.Name.
const (
	CheckMount        = "mount"        // the mount answers
	CheckKeys         = "keys"         // held or to be had, the settings verified, not locked
	CheckServers      = "servers"      // none is down
	CheckCertificates = "certificates" // none ends soon
	CheckFiles        = "files"        // no file is damaged, or in clear against the rules
	CheckSpace        = "space"        // BACKING has blocks and inodes left
)

// Health is the result of a health check of a mount.
type Health struct {
	Mountpoint string  `json:"mountpoint"`
	Backing    string  `json:"backing"`
	OK         bool    `json:"ok"`     // all checks are
	Checks     []Check `json:"checks"` // in the order of the constants above
}

// Check is the result of one check.
type Check struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Message string `json:"message"` // one line, also when all is well
}

// NewHealth is the health of m by checks.
func NewHealth(m Mount, checks ...Check) Health {
	h := Health{Mountpoint: m.Mountpoint, Backing: m.Backing, OK: true, Checks: checks}
	for _, c := range checks {
		h.OK = h.OK && c.OK
	}
	return h
}

// health answers 200 for a mount that is well and 503 for another, with the same body.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	h := s.source.Health(r.Context())
	w.Header().Set("Content-Type", "application/json")
	if !h.OK {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(h) // as in answer
}

// Health asks for the mount's health. A mount with a failed check gives a Health and no error.
func (c *Client) Health(ctx context.Context) (h Health, err error) {
	resp, err := c.send(ctx, http.MethodGet, "/v1/health", nil)
	if err != nil {
		return h, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&h)
	if err == nil && len(h.Checks) == 0 { // an older daemon, or a refusal
		err = fmt.Errorf("GET /v1/health: %s", resp.Status)
	}
	if err != nil {
		return h, fmt.Errorf("control socket %s: %w", c.socket, err)
	}
	return h, nil
}
