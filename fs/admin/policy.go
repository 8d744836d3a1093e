package admin

import (
	"context"
	"fmt"
	"net/http"

	"vmcryptfs/fs/policy"
	"vmcryptfs/fs/wire"
	"vmcryptfs/layout"
)

// maxPolicies bounds an answer about policies in bytes: a settings file holds layout.MaxSettings, and
// the answer says more of each place, and in JSON.
const maxPolicies = 16 * layout.MaxSettings

// Policies asks for the policies and places of the mounted datastore.
func (c *Client) Policies(ctx context.Context) (l policy.Listing, err error) {
	body, err := c.do(ctx, http.MethodGet, "/v1/policies", nil)
	if err != nil {
		return l, err
	}
	return l, c.readUpTo(maxPolicies, body, &l)
}

// ChangePolicies has the mount do r. Errors are those of policy.Do, and unix.EROFS.
func (c *Client) ChangePolicies(ctx context.Context, r policy.Request) (result policy.Result, err error) {
	body, err := c.post(ctx, "/v1/policies", r)
	if err != nil {
		return result, err
	}
	return result, c.readUpTo(maxPolicies, body, &result)
}

func (s *Server) policies(w http.ResponseWriter, r *http.Request) {
	list, err := s.source.Policies(r.Context())
	answer(w, list, err)
}

func (s *Server) changePolicies(w http.ResponseWriter, r *http.Request) {
	var in policy.Request
	if err := decodeAll(r.Body, &in); err != nil {
		answer(w, nil, fmt.Errorf("policies: %w: %w", wire.ErrRequest, err))
		return
	}
	result, err := s.source.ChangePolicies(r.Context(), in)
	answer(w, result, err)
}
