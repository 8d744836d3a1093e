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

// negotiate sets the session's version. A configured version is used without asking the server,
// since this client may have no right to ask; else the newest version common to both sides.
func (s *session) negotiate(ctx context.Context) error {
	if pinned, err := wire.ParseVersion(s.config.Version); err == nil {
		s.version = pinned
		return nil
	}
	offered, err := s.discover(ctx)
	if err != nil {
		return err
	}
	return s.agree(offered)
}

// agree picks the session's version among the offered ones.
func (s *session) agree(offered []wire.Version) error {
	for _, v := range wire.Versions() {
		if slices.Contains(offered, v) {
			s.version = v
			return nil
		}
	}
	return &classified{keys.ErrUnreachable, fmt.Errorf("the server speaks KMIP %v, not %v", offered, wire.Versions())}
}

// answers checks that the server answers on this session. A negotiated version proves an answer.
// With a configured version, the server is asked by an operation needed by every client, about a
// key unknown to every server. A refusal is an answer.
func (s *session) answers(ctx context.Context) error {
	if s.config.Version == "" {
		return nil
	}
	_, err := s.getAttributes(ctx, "vmcryptfs-are-you-there", "State")
	if _, ok := errors.AsType[*result](err); ok {
		return nil
	}
	return err
}

// discover requests the versions of the server (KMIP 1.4 §4.26). The request itself needs a
// version: most servers accept 1.2. A server that refuses 1.2 is asked by each other version in
// turn, and a server without the operation speaks 1.0.
func (s *session) discover(ctx context.Context) ([]wire.Version, error) {
	asked := []wire.Version{{Major: 1, Minor: 2}, {Major: 1, Minor: 4}, {Major: 2, Minor: 0},
		{Major: 1, Minor: 3}, {Major: 1, Minor: 1}, {Major: 1, Minor: 0}}
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

// query requests the operations offered by the server (KMIP 1.4 §4.25).
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
