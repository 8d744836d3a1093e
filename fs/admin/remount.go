package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// RemountRequest names options of the kernel's to change: "ro", "rw", "nosuid", "suid", …
type RemountRequest struct {
	Options []string `json:"options"`
}

// Remount makes the daemon change options of its mount. While files are open for writing,
// read-only fails with unix.EBUSY. While a long work runs, every change fails with work.ErrBusy.
func (c *Client) Remount(ctx context.Context, options []string) error {
	body, err := c.post(ctx, "/v1/remount", RemountRequest{options})
	if err != nil {
		return err
	}
	return body.Close()
}

func (s *Server) remount(w http.ResponseWriter, r *http.Request) {
	var in RemountRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		answer(w, nil, fmt.Errorf("remount: %w", err))
		return
	}
	err := s.works.Alone("remount", func() error { // a work writes
		return s.source.Remount(r.Context(), in.Options)
	})
	answer(w, struct{}{}, err)
}
