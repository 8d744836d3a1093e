package kmip

import (
	"context"
	"fmt"
	"time"

	"vmcryptfs/keys"
)

// A Description is the KMS's data about a key. Absent dates are zero. A Deactivation in the
// future is the key's end.
type Description struct {
	ID, Name     string
	State        keys.State
	Initial      time.Time
	Activation   time.Time
	Deactivation time.Time
	Ends         time.Time // end of wrapping new files: Deactivation, or an earlier Protect Stop Date
	Compromise   time.Time
	Destroy      time.Time
}

// Describe requests the attributes of a key; errors are those of State.
func (p *Provider) Describe(ctx context.Context, id string) (Description, error) {
	var a attributes
	err := p.cluster().try(ctx, attempt{"Get Attributes", id, true, func(ctx context.Context, s *session) (err error) {
		a, err = s.getAttributes(ctx, id)
		return err
	}})
	if err != nil {
		return Description{}, fmt.Errorf("provider %s: attributes of key %q: %w", p.Name(), id, err)
	}
	return Description{
		ID: id, Name: a.name(), State: a.state,
		Initial: a.dates["Initial Date"], Activation: a.dates["Activation Date"],
		Deactivation: a.dates["Deactivation Date"], Compromise: a.dates["Compromise Date"],
		Destroy: a.dates["Destroy Date"], Ends: a.ends(),
	}, nil
}
