package kmip

import (
	"bytes"
	"encoding/binary"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"
	"github.com/gemalto/kmip-go/ttlv"

	"vmcryptfs/keys/kmip/wire"
)

// A request is one operation, before a version is known.
type request struct {
	operation kmip14.Operation
	payload   func(wire.Version) ([]ttlv.Value, error)
	material  []byte // key material, put in place of zeros in the payload; nil: none
	echo      int    // meaningless bytes repeated by the answer
}

// encode encodes the request message (KMIP 1.4 §7.2). The caller wipes the message.
func (s *session) encode(r request) ([]byte, error) {
	payload, err := r.payload(s.version)
	if err != nil {
		return nil, err
	}
	header := []ttlv.Value{s.version.Value()}
	if s.config.Username != "" {
		header = append(header, credential(s.config.Username, s.identity.password))
	}
	header = append(header, ttlv.NewValue(kmip14.TagBatchCount, int32(1)))
	frame, err := wire.Encode(ttlv.NewStruct(kmip14.TagRequestMessage,
		ttlv.NewStruct(kmip14.TagRequestHeader, header...),
		ttlv.NewStruct(kmip14.TagBatchItem,
			ttlv.NewValue(kmip14.TagOperation, r.operation),
			ttlv.NewValue(kmip14.TagUniqueBatchItemID, s.batchID(r)),
			ttlv.NewStruct(kmip14.TagRequestPayload, payload...))))
	if err != nil || r.material == nil {
		return frame, err
	}
	return frame, wire.SetMaterials(frame, [][]byte{r.material})
}

// batchID tells a request, and the answer, from others. The request sets the length.
func (s *session) batchID(r request) []byte {
	return append(binary.BigEndian.AppendUint64(nil, s.batch), make([]byte, r.echo)...)
}

// credential is the Authentication of a request's header (KMIP 1.4 §2.1.2).
func credential(username, password string) ttlv.Value {
	return ttlv.NewStruct(kmip14.TagAuthentication,
		ttlv.NewStruct(kmip14.TagCredential,
			ttlv.NewValue(kmip14.TagCredentialType, kmip14.CredentialTypeUsernameAndPassword),
			ttlv.NewStruct(kmip14.TagCredentialValue,
				ttlv.NewValue(kmip14.TagUsername, wire.Text(username)),
				ttlv.NewValue(kmip14.TagPassword, wire.Text(password)))))
}

// match finds the payload of the answer to the last request (KMIP 1.4 §7.3): absent where the
// operation has none. A refusal gives a *result.
func (s *session) match(r request, message wire.Item) (wire.Item, error) {
	header, err := message.Struct(kmip14.TagResponseHeader)
	if err != nil {
		return wire.Item{}, err
	}
	if count, err := header.Int(kmip14.TagBatchCount); err != nil || count != 1 {
		return wire.Item{}, wire.Malformed("the answer has %d batch items, not one", count)
	}
	item, err := message.Struct(kmip14.TagBatchItem)
	if err != nil {
		return wire.Item{}, err
	}
	if item.Find(kmip14.TagOperation).Present() {
		answered, err := item.Enum(kmip14.TagOperation)
		if err != nil || kmip14.Operation(answered) != r.operation {
			return wire.Item{}, wire.Malformed("the answer is to another operation")
		}
	}
	if id := item.Find(kmip14.TagUniqueBatchItemID); id.Present() {
		if !bytes.Equal(id.Raw(), s.batchID(r)) {
			return wire.Item{}, wire.Malformed("the answer is to another request")
		}
	}
	if err := status(item); err != nil {
		return wire.Item{}, err
	}
	return item.Find(kmip14.TagResponsePayload), nil
}

// status returns nil for a success, else a *result, or an error about the malformed part.
func status(item wire.Item) error {
	code, err := item.Enum(kmip14.TagResultStatus)
	if err != nil {
		return err
	}
	if kmip14.ResultStatus(code) == kmip14.ResultStatusSuccess {
		return nil
	}
	r := &result{status: kmip14.ResultStatus(code)}
	if reason, err := item.Enum(kmip14.TagResultReason); err == nil {
		r.reason = kmip20.ResultReason(reason)
	}
	if message, err := item.Text(kmip14.TagResultMessage); err == nil {
		r.message = message
	}
	return r
}
