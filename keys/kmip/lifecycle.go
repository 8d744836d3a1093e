package kmip

import (
	"context"
	"errors"
	"fmt"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"

	"vmcryptfs/keys"
)

// A RevocationReason is why a key ends (KMIP 1.4 §9.1.3.2.19).
type RevocationReason uint32

// KeyCompromise makes a key Compromised, the others an Active key Deactivated.
const (
	Unspecified          = RevocationReason(kmip14.RevocationReasonCodeUnspecified)
	KeyCompromise        = RevocationReason(kmip14.RevocationReasonCodeKeyCompromise)
	Superseded           = RevocationReason(kmip14.RevocationReasonCodeSuperseded)
	CessationOfOperation = RevocationReason(kmip14.RevocationReasonCodeCessationOfOperation)
)

// Revoke ends the use of a key for new files: the key becomes Deactivated, or Compromised.
func (p *Provider) Revoke(ctx context.Context, id string, reason RevocationReason) error {
	return p.alter(ctx, "Revoke", id, func(ctx context.Context, s *session) error {
		return s.revoke(ctx, id, kmip14.RevocationReasonCode(reason))
	})
}

// Destroy ends a key for good: data wrapped under this key alone is lost.
func (p *Provider) Destroy(ctx context.Context, id string) error {
	return p.alter(ctx, "Destroy", id, func(ctx context.Context, s *session) error {
		return s.destroy(ctx, id)
	})
}

// alter does an operation that must not be done twice: after a lost answer the caller has to ask
// for the state.
func (p *Provider) alter(ctx context.Context, operation, id string, do func(context.Context, *session) error) error {
	if err := p.cluster().try(ctx, attempt{operation, id, false, do}); err != nil {
		return fmt.Errorf("provider %s: key %q: %w", p.Name(), id, err)
	}
	return nil
}

// Rekey makes the KMS create a replacement of a key, if the KMS offers that (else
// keys.ErrRefused). The replacement is returned activated and checked, as by Create.
func (p *Provider) Rekey(ctx context.Context, id string) (*keys.KEK, error) {
	var fresh string
	err := p.cluster().try(ctx, attempt{"Re-key", id, false, func(ctx context.Context, s *session) error {
		offered, err := s.offers(ctx, kmip14.OperationReKey)
		if _, refused := errors.AsType[*result](err); err != nil && !refused {
			return err
		}
		if err == nil && !offered {
			return &result{status: kmip14.ResultStatusOperationFailed,
				reason: kmip20.ResultReasonOperationNotSupported, message: "Query does not list it"}
		}
		fresh, err = s.rekey(ctx, id)
		return err
	}})
	if err != nil {
		return nil, fmt.Errorf("provider %s: key %q: %w", p.Name(), id, err)
	}
	kek, err := p.finish(ctx, fresh)
	if err != nil {
		return nil, fmt.Errorf("provider %s: new key %q in place of %q: %w", p.Name(), fresh, id, err)
	}
	return kek, nil
}
