package kmip

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"
	"github.com/gemalto/kmip-go/ttlv"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

// negotiate sets the session's version: the newest that both sides speak, or the
// configured one. Even then the server is asked, so that an open session is one that
// answers.
func (s *session) negotiate(ctx context.Context) error {
	offered, err := s.discover(ctx)
	if err != nil {
		return err
	}
	return s.agree(offered)
}

// agree picks the session's version among those offered.
func (s *session) agree(offered []wire.Version) error {
	for _, v := range wire.Versions() {
		wanted := s.config.Version == "" || s.config.Version == v.String()
		if wanted && slices.Contains(offered, v) {
			s.version = v
			return nil
		}
	}
	wanted := s.config.Version
	if wanted == "" {
		wanted = fmt.Sprint(wire.Versions())
	}
	return &classified{keys.ErrUnreachable, fmt.Errorf("the server speaks KMIP %v, not %s", offered, wanted)}
}

// discover asks for the versions of the server (KMIP 1.4 §4.26). A request needs a
// version before one is agreed on: 1.2 is what most accept; a server that does not
// take it is asked by each other one, and one that does not know the question
// speaks 1.0.
func (s *session) discover(ctx context.Context) ([]wire.Version, error) {
	asked := []wire.Version{{Major: 1, Minor: 2}, {Major: 1, Minor: 4}, {Major: 2, Minor: 0},
		{Major: 1, Minor: 3}, {Major: 1, Minor: 1}, {Major: 1, Minor: 0}}
	if pinned, err := wire.ParseVersion(s.config.Version); err == nil {
		asked = slices.Insert(asked, 0, pinned)
	}
	var refusal *result
	for _, s.version = range asked {
		offered, err := s.discoverBy(ctx)
		if err == nil {
			return offered, nil
		}
		if !errors.As(err, &refusal) {
			return nil, err
		}
		switch refusal.reason {
		case kmip20.ResultReasonOperationNotSupported:
			return []wire.Version{{Major: 1, Minor: 0}}, nil
		case kmip20.ResultReasonAuthenticationNotSuccessful, kmip20.ResultReasonPermissionDenied,
			kmip20.ResultReasonNotAuthorized:
			return nil, &classified{keys.ErrRefused, refusal}
		}
	}
	return nil, &classified{keys.ErrUnreachable, refusal}
}

func (s *session) discoverBy(ctx context.Context) (offered []wire.Version, err error) {
	err = s.call(ctx, request{
		operation: kmip14.OperationDiscoverVersions,
		payload: func(wire.Version) ([]ttlv.Value, error) {
			return versionValues(wire.Versions()), nil
		},
	}, func(payload wire.Item) error {
		for child := range payload.Children() {
			if child.Tag() != kmip14.TagProtocolVersion {
				continue
			}
			v, err := child.AsVersion()
			if err != nil {
				return err
			}
			offered = append(offered, v)
		}
		return nil
	})
	return offered, err
}

func versionValues(versions []wire.Version) []ttlv.Value {
	var values []ttlv.Value
	for _, v := range versions {
		values = append(values, v.Value())
	}
	return values
}

// query asks for the operations that the server offers (KMIP 1.4 §4.25).
func (s *session) query(ctx context.Context) (operations []kmip14.Operation, err error) {
	err = s.call(ctx, request{
		operation: kmip14.OperationQuery,
		payload: func(wire.Version) ([]ttlv.Value, error) {
			return []ttlv.Value{ttlv.NewValue(kmip14.TagQueryFunction, kmip14.QueryFunctionQueryOperations)}, nil
		},
	}, func(payload wire.Item) error {
		for child := range payload.Children() {
			if child.Tag() != kmip14.TagOperation {
				continue
			}
			code, err := child.AsEnum()
			if err != nil {
				return err
			}
			operations = append(operations, kmip14.Operation(code))
		}
		return nil
	})
	return operations, err
}
