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

// attributes are the attributes of a key used here; zero where the server has none.
type attributes struct {
	kind      kmip14.ObjectType
	state     keys.State
	algorithm kmip14.CryptographicAlgorithm
	bits      int32
	usage     kmip14.CryptographicUsageMask
	names     []string
	dates     map[string]time.Time // by canonical name: "Deactivation Date"
}

// Attributes for the time when a server made a key, and when the key may be used.
const (
	initialDate      = "Initial Date"
	processStartDate = "Process Start Date"
	protectStopDate  = "Protect Stop Date"
)

// getAttributes requests the attributes with the given canonical names, or all without names
// (KMIP 1.4 §4.12).
func (s *session) getAttributes(ctx context.Context, id string, names ...string) (a attributes, err error) {
	return s.getAttributesLong(ctx, 0, id, names...)
}

// overwrite makes the server send an answer of at least length bytes. The right to read
// attributes suffices. A server that refuses such a request loses the session, and nothing needed
// is lost.
func (s *session) overwrite(ctx context.Context, id string, length int) {
	if _, err := s.getAttributesLong(ctx, length, id, "State"); broken(err) {
		s.spent = true
	}
}

// getAttributesLong is getAttributes with an answer longer by some bytes.
func (s *session) getAttributesLong(ctx context.Context, longer int, id string, names ...string) (a attributes, err error) {
	err = s.call(ctx, request{
		echo:      longer,
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

// set takes over one attribute and ignores unused ones.
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
	case "Cryptographic Usage Mask":
		var mask int32
		mask, err = got.Value.AsInt()
		a.usage = kmip14.CryptographicUsageMask(mask)
	case "Object Type":
		code, err = got.Value.AsEnum()
		a.kind = kmip14.ObjectType(code)
	case "Name": // a key may have several
		var name string
		name, err = got.Value.Text(kmip14.TagNameValue)
		a.names = append(a.names, name)
	case "Activation Date", "Deactivation Date", "Compromise Date", "Destroy Date",
		initialDate, processStartDate, protectStopDate:
		a.dates[got.Name], err = got.Value.AsTime()
	}
	return err
}

// name returns the key's first Name, empty without one.
func (a *attributes) name() string {
	if len(a.names) == 0 {
		return ""
	}
	return a.names[0]
}

// check returns an error unless the attributes say AES with 256 bits.
func (a *attributes) check() error {
	if a.kind != 0 && a.kind != kmip14.ObjectTypeSymmetricKey {
		return fmt.Errorf("%w: it is a %s", keys.ErrKeyLength, a.kind)
	}
	if a.algorithm != kmip14.CryptographicAlgorithmAES || a.bits != kekBits {
		return fmt.Errorf("%w: it is for %s with %d bits", keys.ErrKeyLength, a.algorithm, a.bits)
	}
	return nil
}

// ready returns an error unless a key may be put in use for new files now (KMIP 1.4 §3.19, §3.22,
// §3.25, §3.26): the key must be able to wrap, and to unwrap again.
func (a *attributes) ready(now time.Time) error {
	if err := a.check(); err != nil {
		return err
	}
	const wraps = kmip14.CryptographicUsageMaskEncrypt | kmip14.CryptographicUsageMaskWrapKey
	const opens = kmip14.CryptographicUsageMaskDecrypt | kmip14.CryptographicUsageMaskUnwrapKey
	start, stop, end := a.dates[processStartDate], a.dates[protectStopDate], a.dates["Deactivation Date"]
	switch {
	case a.state != keys.Active:
		return &stateError{state: a.state}
	case a.usage != 0 && (a.usage&wraps == 0 || a.usage&opens == 0):
		return fmt.Errorf("%w: its usage mask allows not both to encrypt or wrap and to decrypt or unwrap", keys.ErrKeyState)
	case now.Before(start):
		return fmt.Errorf("%w: it opens files only from its Process Start Date on, %s", keys.ErrKeyState, date(start))
	case !stop.IsZero() && !now.Before(stop):
		return fmt.Errorf("%w: its Protect Stop Date is past: %s", keys.ErrKeyState, date(stop))
	case !end.IsZero() && !now.Before(end):
		return fmt.Errorf("%w: its Deactivation Date is past: %s", keys.ErrKeyState, date(end))
	}
	return nil
}
