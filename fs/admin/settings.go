package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"vmcryptfs/fs/wire"
	"vmcryptfs/layout"
)

// maxSettingsBody bounds the body of a SettingsRequest in bytes. JSON has at most six bytes for
// one of a pattern, and a settings file holds layout.MaxSettings.
const maxSettingsBody = 8 * layout.MaxSettings

// Settings are the settings of a datastore in JSON.
type Settings struct {
	Format   int      `json:"format"`
	ID       string   `json:"id"` // UUID
	Provider string   `json:"provider"`
	KEK      string   `json:"kek"`
	Serial   uint64   `json:"serial"`
	Encrypt  []string `json:"encrypt"` // never null, nor is Clear
	Clear    []string `json:"clear"`
}

// NewSettings is s in JSON. The lists are copies.
func NewSettings(s *layout.Settings) Settings {
	return Settings{
		Format: s.Format, ID: s.ID.String(), Provider: s.Provider, KEK: s.KEK, Serial: s.Serial,
		Encrypt: append([]string{}, s.Encrypt...), Clear: append([]string{}, s.Clear...),
	}
}

// Layout is the inverse of NewSettings. Its errors are those of ids and of layout.Settings.Check.
func (s *Settings) Layout() (*layout.Settings, error) {
	id, err := layout.ParseFileID(s.ID)
	if err != nil {
		return nil, fmt.Errorf("id: %w", err)
	}
	l := &layout.Settings{
		Format: s.Format, ID: id, Provider: s.Provider, KEK: s.KEK, Serial: s.Serial, Encrypt: s.Encrypt, Clear: s.Clear,
	}
	return l, l.Check()
}

// SettingsRequest asks for other rules of a mounted datastore.
type SettingsRequest struct {
	// Serial is that of the Settings from which the rules were made.
	Serial uint64 `json:"serial"`
	// Encrypt and Clear are the whole lists, both of them. An empty list is [] and not null: what
	// is left out by mistake must not change what is encrypted.
	Encrypt []string `json:"encrypt"`
	Clear   []string `json:"clear"`
}

// SettingsResult answers a SettingsRequest.
type SettingsResult struct {
	Serial uint64 `json:"serial"` // of the new settings
}

// Settings asks for the proven settings, for a change to begin from. Whatever would refuse the
// change refuses Settings: unix.EROFS; a keys.ErrNoKey or keys.ErrSeal; datastore.ErrChanged if
// the file in BACKING is not what the mount read.
func (c *Client) Settings(ctx context.Context) (*layout.Settings, error) {
	var s Settings
	if err := c.call(ctx, http.MethodGet, "/v1/settings", &s); err != nil {
		return nil, err
	}
	l, err := s.Layout()
	if err != nil {
		return nil, fmt.Errorf("control socket %s: its settings are not understood: %w", c.socket, err)
	}
	return l, nil
}

// ChangeSettings has the mount seal the rules of next and take them up, and returns the new
// serial. next.Serial is the serial that Settings gave: datastore.ErrChanged if the settings are
// others by now. Only the rules and the serial of next count. More errors are as of Settings.
func (c *Client) ChangeSettings(ctx context.Context, next *layout.Settings) (serial uint64, err error) {
	s := NewSettings(next)
	body, err := c.post(ctx, "/v1/settings", SettingsRequest{Serial: s.Serial, Encrypt: s.Encrypt, Clear: s.Clear})
	if err != nil {
		return 0, err
	}
	var result SettingsResult
	if err := c.read(body, &result); err != nil {
		return 0, err
	}
	return result.Serial, nil
}

func (s *Server) settings(w http.ResponseWriter, r *http.Request) {
	settings, err := s.source.Settings(r.Context())
	answer(w, settings, err)
}

func (s *Server) changeSettings(w http.ResponseWriter, r *http.Request) {
	in, err := settingsRequest(http.MaxBytesReader(w, r.Body, maxSettingsBody))
	if err != nil {
		answer(w, nil, fmt.Errorf("settings: %w: %w", wire.ErrRequest, err))
		return
	}
	serial, err := s.source.ChangeSettings(r.Context(), in)
	answer(w, SettingsResult{serial}, err)
}

// settingsRequest reads body, which leaves nothing out.
func settingsRequest(body io.Reader) (in SettingsRequest, err error) {
	if err := decodeAll(body, &in); err != nil {
		return in, err
	}
	if in.Encrypt == nil || in.Clear == nil {
		return in, errors.New("encrypt and clear are needed, both; [] is an empty list")
	}
	return in, nil
}
