package kmip

import (
	"context"
	"fmt"
	"time"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"
	"github.com/gemalto/kmip-go/ttlv"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

// attributes are those of a key that matter here; zero where the server has none.
type attributes struct {
	state     keys.State
	algorithm kmip14.CryptographicAlgorithm
	bits      int32
	name      string
	dates     map[string]time.Time // by canonical name: "Deactivation Date"
}

// initialDate is the attribute that tells when a server made a key.
const initialDate = "Initial Date"

// getAttributes asks for the attributes of these canonical names, or for all when
// there are none (KMIP 1.4 §4.12).
func (s *session) getAttributes(ctx context.Context, id string, names ...string) (a attributes, err error) {
	err = s.call(ctx, request{
		operation: kmip14.OperationGetAttributes,
		payload: func(v wire.Version) ([]ttlv.Value, error) {
			values := []ttlv.Value{ttlv.NewValue(kmip14.TagUniqueIdentifier, wire.Text(id))}
			for _, name := range names {
				reference, err := attributeReference(v, name)
				if err != nil {
					return nil, err
				}
				values = append(values, reference)
			}
			return values, nil
		},
	}, func(payload wire.Item) error {
		if err := confirm(id)(payload); err != nil {
			return err
		}
		a.reset()
		for got, err := range wire.Attributes(s.version, payload) {
			if err == nil {
				err = a.set(got)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return a, err
}

func attributeReference(v wire.Version, name string) (ttlv.Value, error) {
	if v.Major < 2 {
		return ttlv.NewValue(kmip14.TagAttributeName, wire.Text(name)), nil
	}
	tag, err := wire.AttributeTag(name)
	return ttlv.NewValue(kmip20.TagAttributeReference, ttlv.EnumValue(tag)), err
}

// reset makes a empty, before an answer is read.
func (a *attributes) reset() { *a = attributes{dates: map[string]time.Time{}} }

// set takes over one attribute; those that nobody asks for are passed over.
func (a *attributes) set(got wire.GotAttribute) (err error) {
	var code uint32
	switch got.Name {
	case "State":
		code, err = got.Value.AsEnum()
		if err == nil && (code < 1 || code > uint32(keys.DestroyedCompromised)) {
			err = wire.Malformed("state %d is none of KMIP's", code)
		}
		if err == nil {
			a.state = keys.State(code)
		}
	case "Cryptographic Algorithm":
		code, err = got.Value.AsEnum()
		a.algorithm = kmip14.CryptographicAlgorithm(code)
	case "Cryptographic Length":
		a.bits, err = got.Value.AsInt()
	case "Name":
		a.name, err = got.Value.Text(kmip14.TagNameValue)
	case "Activation Date", "Protect Stop Date", "Deactivation Date", "Compromise Date", "Destroy Date", initialDate:
		a.dates[got.Name], err = got.Value.AsTime()
	}
	return err
}

// check tells whether a key is an AES key of 256 bits by its attributes.
func (a *attributes) check() error {
	if a.algorithm != kmip14.CryptographicAlgorithmAES || a.bits != kekBits {
		return fmt.Errorf("%w: it is for %s with %d bits", keys.ErrKeyLength, a.algorithm, a.bits)
	}
	return nil
}
