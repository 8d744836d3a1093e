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

const kekBits = 256

// byID is the payload of operations with a Unique Identifier and more.
func byID(id string, more ...ttlv.Value) func(wire.Version) ([]ttlv.Value, error) {
	return func(wire.Version) ([]ttlv.Value, error) {
		return append([]ttlv.Value{ttlv.NewValue(kmip14.TagUniqueIdentifier, wire.Text(id))}, more...), nil
	}
}

// confirm checks that an answer concerns the requested key.
func confirm(id string) func(payload wire.Item) error {
	return func(payload wire.Item) error {
		answered, err := payload.Text(kmip14.TagUniqueIdentifier)
		if err != nil {
			return err
		}
		if answered != id {
			return wire.Malformed("the answer is about key %q", shorten(answered))
		}
		return nil
	}
}

// create requests a new AES-256 key (KMIP 1.4 §4.1), and returns the identifier.
func (s *session) create(ctx context.Context, attributes []wire.Attribute) (id string, err error) {
	err = s.call(ctx, request{
		operation: kmip14.OperationCreate,
		payload: func(v wire.Version) ([]ttlv.Value, error) {
			template, err := wire.Template(v, attributes)
			return []ttlv.Value{ttlv.NewValue(kmip14.TagObjectType, kmip14.ObjectTypeSymmetricKey), template}, err
		},
	}, func(payload wire.Item) error {
		id, err = newID(payload)
		return err
	})
	return id, err
}

// newID returns the identifier given by a server to a new key, after checkID.
func newID(payload wire.Item) (string, error) {
	id, err := payload.Text(kmip14.TagUniqueIdentifier)
	if err == nil {
		err = checkID(id)
	}
	return id, err
}

// checkID refuses an identifier too long or otherwise unfit for headers.
func checkID(id string) error {
	if len(id) < 1 || len(id) > 256 {
		return wire.Malformed("an identifier of %d bytes, 1 to 256 accepted", len(id))
	}
	return nil
}

// register gives a key made elsewhere to the server (KMIP 1.4 §4.3).
func (s *session) register(ctx context.Context, attributes []wire.Attribute, material []byte) (id string, err error) {
	err = s.call(ctx, request{
		operation: kmip14.OperationRegister,
		payload: func(v wire.Version) ([]ttlv.Value, error) {
			template, err := wire.Template(v, attributes)
			return []ttlv.Value{
				ttlv.NewValue(kmip14.TagObjectType, kmip14.ObjectTypeSymmetricKey),
				template,
				ttlv.NewStruct(kmip14.TagSymmetricKey, keyBlock(len(material))),
			}, err
		},
		material: material,
	}, func(payload wire.Item) error {
		id, err = newID(payload)
		return err
	})
	return id, err
}

// keyBlock is a raw AES key of n zero bytes, to be filled (KMIP 1.4 §2.1.3).
func keyBlock(n int) ttlv.Value {
	return ttlv.NewStruct(kmip14.TagKeyBlock,
		ttlv.NewValue(kmip14.TagKeyFormatType, kmip14.KeyFormatTypeRaw),
		ttlv.NewStruct(kmip14.TagKeyValue, ttlv.NewValue(kmip14.TagKeyMaterial, make([]byte, n))),
		ttlv.NewValue(kmip14.TagCryptographicAlgorithm, kmip14.CryptographicAlgorithmAES),
		ttlv.NewValue(kmip14.TagCryptographicLength, int32(8*n)))
}

// activate makes a Pre-Active key Active (KMIP 1.4 §4.19).
func (s *session) activate(ctx context.Context, id string) error {
	return s.call(ctx, request{operation: kmip14.OperationActivate, payload: byID(id)}, confirm(id))
}

// revoke deactivates a key, or marks a key compromised (KMIP 1.4 §4.20).
func (s *session) revoke(ctx context.Context, id string, reason kmip14.RevocationReasonCode) error {
	return s.call(ctx, request{
		operation: kmip14.OperationRevoke,
		payload: byID(id, ttlv.NewStruct(kmip14.TagRevocationReason,
			ttlv.NewValue(kmip14.TagRevocationReasonCode, reason))),
	}, confirm(id))
}

// destroy ends a key (KMIP 1.4 §4.21).
func (s *session) destroy(ctx context.Context, id string) error {
	return s.call(ctx, request{operation: kmip14.OperationDestroy, payload: byID(id)}, confirm(id))
}

// get fetches a key's material to locked memory (KMIP 1.4 §4.11).
func (s *session) get(ctx context.Context, provider, id string) (kek *keys.KEK, err error) {
	err = s.call(ctx, request{operation: kmip14.OperationGet, payload: byID(id)}, func(payload wire.Item) error {
		if err := confirm(id)(payload); err != nil {
			return err
		}
		material, err := readKey(payload)
		if err != nil {
			return err
		}
		kek, err = keys.NewKEK(provider, id, material)
		if err != nil && !errors.Is(err, keys.ErrKeyLength) {
			err = &hostError{err}
		}
		return err
	})
	return kek, err
}

// readKey finds the material of an AES-256 key in the answer to Get, in the answer's
// own buffer.
func readKey(payload wire.Item) ([]byte, error) {
	if kind, err := payload.Enum(kmip14.TagObjectType); err != nil {
		return nil, err
	} else if kmip14.ObjectType(kind) != kmip14.ObjectTypeSymmetricKey {
		return nil, fmt.Errorf("%w: it is a %s", keys.ErrKeyLength, kmip14.ObjectType(kind))
	}
	key, err := payload.Struct(kmip14.TagSymmetricKey)
	if err != nil {
		return nil, err
	}
	block, err := key.Struct(kmip14.TagKeyBlock)
	if err != nil {
		return nil, err
	}
	if err := checkBlock(block); err != nil {
		return nil, err
	}
	value, err := block.Struct(kmip14.TagKeyValue)
	if err != nil {
		return nil, err
	}
	material := value.Find(kmip14.TagKeyMaterial)
	if material.Type() == ttlv.TypeStructure { // a Transparent Symmetric Key
		return material.Bytes(kmip14.TagKey)
	}
	return value.Bytes(kmip14.TagKeyMaterial)
}

// checkBlock checks the key block's fields about the key.
func checkBlock(block wire.Item) error {
	if block.Find(kmip14.TagKeyWrappingData).Present() {
		return fmt.Errorf("%w: the server wraps it", keys.ErrKeyLength)
	}
	format, err := block.Enum(kmip14.TagKeyFormatType)
	if err != nil {
		return err
	}
	switch kmip14.KeyFormatType(format) {
	case kmip14.KeyFormatTypeRaw, kmip14.KeyFormatTypeTransparentSymmetricKey:
	default:
		return fmt.Errorf("%w: its format is %s", keys.ErrKeyLength, kmip14.KeyFormatType(format))
	}
	if block.Find(kmip14.TagCryptographicAlgorithm).Present() {
		algorithm, err := block.Enum(kmip14.TagCryptographicAlgorithm)
		if err != nil {
			return err
		}
		if kmip14.CryptographicAlgorithm(algorithm) != kmip14.CryptographicAlgorithmAES {
			return fmt.Errorf("%w: it is for %s", keys.ErrKeyLength, kmip14.CryptographicAlgorithm(algorithm))
		}
	}
	if block.Find(kmip14.TagCryptographicLength).Present() {
		bits, err := block.Int(kmip14.TagCryptographicLength)
		if err != nil {
			return err
		}
		if bits != kekBits {
			return fmt.Errorf("%w: it has %d bits", keys.ErrKeyLength, bits)
		}
	}
	return nil
}

// locate searches keys by Name (KMIP 1.4 §4.9) and returns most identifiers at most. The keys
// returned by the server may have other names.
func (s *session) locate(ctx context.Context, name string, most int) (ids []string, err error) {
	err = s.call(ctx, request{
		operation: kmip14.OperationLocate,
		payload: func(v wire.Version) ([]ttlv.Value, error) {
			values := []ttlv.Value{ttlv.NewValue(kmip14.TagMaximumItems, int32(most))}
			if v.Major >= 2 {
				template, err := wire.Template(v, []wire.Attribute{wire.NameAttribute(name)})
				return append(values, template), err
			}
			list, err := wire.AttributeList(v, []wire.Attribute{wire.NameAttribute(name)})
			return append(values, list...), err
		},
	}, func(payload wire.Item) error {
		for child := range payload.Children() {
			if child.Tag() != kmip14.TagUniqueIdentifier || len(ids) == most {
				continue
			}
			id, err := child.AsText()
			if err == nil {
				err = checkID(id)
			}
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return nil
	})
	// Some servers say "not found" to a search with no hit.
	if r, ok := errors.AsType[*result](err); ok && errors.Is(r.kind(), keys.ErrNotFound) {
		return nil, nil
	}
	return ids, err
}

// rekey makes a replacement of a key on the server (KMIP 1.4 §4.4), and returns the new
// identifier.
func (s *session) rekey(ctx context.Context, id string) (fresh string, err error) {
	err = s.call(ctx, request{operation: kmip14.OperationReKey, payload: byID(id)}, func(payload wire.Item) error {
		fresh, err = newID(payload)
		return err
	})
	if err == nil && fresh == id {
		err = wire.Malformed("the new key has the old one's identifier")
	}
	return fresh, err
}

// offers reports whether the server offers an operation.
func (s *session) offers(ctx context.Context, operation kmip14.Operation) (bool, error) {
	offered, err := s.query(ctx)
	return slices.Contains(offered, operation), err
}

// reasonIs reports whether err is a *result with one of the reasons.
func reasonIs(err error, reasons ...kmip20.ResultReason) bool {
	r, ok := errors.AsType[*result](err)
	return ok && slices.Contains(reasons, r.reason)
}
