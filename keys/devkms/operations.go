package devkms

import (
	"crypto/rand"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"
	"github.com/gemalto/kmip-go/ttlv"

	"vmcryptfs/keys/kmip/wire"
)

// offered returns the operations of this server.
func offered() []kmip14.Operation {
	return []kmip14.Operation{
		kmip14.OperationCreate, kmip14.OperationRegister, kmip14.OperationLocate,
		kmip14.OperationGet, kmip14.OperationGetAttributes, kmip14.OperationActivate,
		kmip14.OperationRevoke, kmip14.OperationDestroy, kmip14.OperationQuery,
		kmip14.OperationDiscoverVersions,
	}
}

// do does one operation.
func (b *batch) do(operation kmip14.Operation, payload wire.Item) (outcome, error) {
	switch operation {
	case kmip14.OperationCreate:
		return b.create(payload)
	case kmip14.OperationRegister:
		return b.register(payload)
	case kmip14.OperationLocate:
		return b.locate(payload)
	case kmip14.OperationGet:
		return b.get(payload)
	case kmip14.OperationGetAttributes:
		return b.getAttributes(payload)
	case kmip14.OperationActivate:
		return b.change(payload, activate)
	case kmip14.OperationRevoke:
		reason, err := revocation(payload)
		if err != nil {
			return outcome{}, err
		}
		return b.change(payload, revoke(reason))
	case kmip14.OperationDestroy:
		return b.change(payload, destroy)
	case kmip14.OperationQuery:
		return b.query(payload)
	case kmip14.OperationDiscoverVersions:
		return b.discoverVersions(payload)
	}
	return outcome{}, failf(kmip20.ResultReasonOperationNotSupported, "operation %s is not supported", operation)
}

// id is the key an operation is about: the Unique Identifier, or the ID Placeholder.
func (b *batch) id(payload wire.Item) (string, error) {
	if payload.Find(kmip14.TagUniqueIdentifier).Present() {
		return payload.Text(kmip14.TagUniqueIdentifier)
	}
	if b.placeholder == "" {
		return "", failf(kmip20.ResultReasonMissingData, "no Unique Identifier")
	}
	return b.placeholder, nil
}

func identified(id string, more ...ttlv.Value) outcome {
	return outcome{payload: append([]ttlv.Value{ttlv.NewValue(kmip14.TagUniqueIdentifier, wire.Text(id))}, more...)}
}

// create makes a symmetric key (KMIP 1.4 §4.1).
func (b *batch) create(payload wire.Item) (outcome, error) {
	o, err := b.newObject(payload)
	if err != nil {
		return outcome{}, err
	}
	if o.Algorithm != number(kmip14.CryptographicAlgorithmAES) || o.Bits != 128 && o.Bits != 192 && o.Bits != 256 {
		return outcome{}, failf(kmip20.ResultReasonInvalidField, "%s with %d bits: AES with 128, 192 or 256 is made", kmip14.CryptographicAlgorithm(o.Algorithm), o.Bits)
	}
	material := make([]byte, o.Bits/8)
	defer clear(material)
	_, _ = rand.Read(material) // never fails (crypto/rand)
	return b.add(payload, o, material)
}

func (b *batch) add(payload wire.Item, o *object, material []byte) (outcome, error) {
	id, err := b.store.add(o, material, b.now)
	if err != nil {
		return outcome{}, err
	}
	b.placeholder = id
	done := identified(id)
	if payload.Find(kmip14.TagSymmetricKey).Present() { // Register's answer has no type
		return done, nil
	}
	done.payload = append([]ttlv.Value{ttlv.NewValue(kmip14.TagObjectType, kmip14.ObjectTypeSymmetricKey)}, done.payload...)
	return done, nil
}

// change is Activate, Revoke or Destroy.
func (b *batch) change(payload wire.Item, change change) (outcome, error) {
	id, err := b.id(payload)
	if err != nil {
		return outcome{}, err
	}
	if err := b.store.change(id, change, b.now); err != nil {
		return outcome{}, err
	}
	return identified(id), nil
}

// revocation is the reason in a Revoke request.
func revocation(payload wire.Item) (kmip14.RevocationReasonCode, error) {
	reason, err := payload.Struct(kmip14.TagRevocationReason)
	if err != nil {
		return 0, failf(kmip20.ResultReasonMissingData, "no Revocation Reason")
	}
	code, err := reason.Enum(kmip14.TagRevocationReasonCode)
	if err != nil {
		return 0, err
	}
	if code < 1 || code > uint32(kmip14.RevocationReasonCodePrivilegeWithdrawn) {
		return 0, failf(kmip20.ResultReasonInvalidField, "Revocation Reason %d is none of KMIP's", code)
	}
	return kmip14.RevocationReasonCode(code), nil
}

// query answers what the server offers (KMIP 1.4 §4.25).
func (b *batch) query(payload wire.Item) (outcome, error) {
	var done outcome
	for child := range payload.Children() {
		if child.Tag() != kmip14.TagQueryFunction {
			continue
		}
		function, err := child.AsEnum()
		if err != nil {
			return outcome{}, err
		}
		switch kmip14.QueryFunction(function) {
		case kmip14.QueryFunctionQueryOperations:
			for _, o := range offered() {
				done.payload = append(done.payload, ttlv.NewValue(kmip14.TagOperation, o))
			}
		case kmip14.QueryFunctionQueryObjects:
			done.payload = append(done.payload, ttlv.NewValue(kmip14.TagObjectType, kmip14.ObjectTypeSymmetricKey))
		case kmip14.QueryFunctionQueryServerInformation:
			done.payload = append(done.payload, ttlv.NewValue(kmip14.TagVendorIdentification, wire.Text("vmcryptfs development KMS")))
		}
	}
	return done, nil
}

// discoverVersions answers which of the requested versions the server speaks, or all (KMIP 1.4
// §4.26). KMIP 1.0 has no such operation.
func (b *batch) discoverVersions(payload wire.Item) (outcome, error) {
	if b.version == (wire.Version{Major: 1, Minor: 0}) {
		return outcome{}, failf(kmip20.ResultReasonOperationNotSupported, "Discover Versions came with KMIP 1.1")
	}
	asked := map[wire.Version]bool{}
	for child := range payload.Children() {
		if child.Tag() != kmip14.TagProtocolVersion {
			continue
		}
		v, err := child.AsVersion()
		if err != nil {
			return outcome{}, err
		}
		asked[v] = true
	}
	var done outcome
	for _, v := range wire.Versions() {
		if len(asked) == 0 || asked[v] {
			done.payload = append(done.payload, v.Value())
		}
	}
	return done, nil
}
