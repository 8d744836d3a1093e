package kmip

import (
	"log/slog"
	"testing"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"
	"github.com/gemalto/kmip-go/ttlv"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// FuzzAnswer: no answer to any operation makes the decoder panic, and accepted values are within
// their bounds.
func FuzzAnswer(f *testing.F) {
	answer := func(v wire.Version, operation kmip14.Operation, payload ...ttlv.Value) {
		frame, err := wire.Encode(ttlv.NewStruct(kmip14.TagResponseMessage,
			ttlv.NewStruct(kmip14.TagResponseHeader, v.Value(), ttlv.NewValue(kmip14.TagBatchCount, int32(1))),
			ttlv.NewStruct(kmip14.TagBatchItem, ttlv.NewValue(kmip14.TagOperation, operation),
				ttlv.NewValue(kmip14.TagResultStatus, kmip14.ResultStatusSuccess),
				ttlv.NewStruct(kmip14.TagResponsePayload, payload...))))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(frame))
	}
	id := ttlv.NewValue(kmip14.TagUniqueIdentifier, wire.Text("1"))
	for _, v := range []wire.Version{{Major: 1, Minor: 2}, {Major: 2, Minor: 0}} {
		list, err := wire.AttributeList(v, []wire.Attribute{wire.NameAttribute("a name"), {Name: "State", Value: kmip14.StateActive},
			{Name: "Cryptographic Algorithm", Value: kmip14.CryptographicAlgorithmAES}, {Name: "Cryptographic Length", Value: int32(256)}})
		if err != nil {
			f.Fatal(err)
		}
		if v.Major >= 2 {
			list = []ttlv.Value{ttlv.NewStruct(kmip20.TagAttributes, list...)}
		}
		answer(v, kmip14.OperationGetAttributes, append([]ttlv.Value{id}, list...)...)
		answer(v, kmip14.OperationGet, ttlv.NewValue(kmip14.TagObjectType, kmip14.ObjectTypeSymmetricKey), id,
			ttlv.NewStruct(kmip14.TagSymmetricKey, keyBlock(32)))
		answer(v, kmip14.OperationDiscoverVersions, versionValues(wire.Versions())...)
		answer(v, kmip14.OperationActivate, id)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, operation := range []kmip14.Operation{kmip14.OperationGet, kmip14.OperationGetAttributes,
			kmip14.OperationDiscoverVersions, kmip14.OperationActivate} {
			s := &session{version: wire.Version{Major: 1, Minor: 2}}
			_ = wire.Decode(frame, func(message wire.Item) error {
				payload, err := s.match(request{operation: operation}, message)
				if err == nil {
					decodeAll(t, payload)
				}
				return err
			})
		}
	})
}

// decodeAll reads a payload as the answer to each operation.
func decodeAll(t *testing.T, payload wire.Item) {
	t.Helper()
	_ = confirm("1")(payload)
	if id, err := newID(payload); err == nil && (len(id) < 1 || len(id) > 256) {
		t.Errorf("an identifier of %d bytes", len(id))
	}
	if material, err := readKey(payload); err == nil {
		// The length is checked as the key goes to locked memory.
		if kek, err := keys.NewKEK("p", "1", material); err == nil {
			kek.Wipe()
			if len(material) != keys.KEKSize {
				t.Errorf("a key of %d bytes", len(material))
			}
		}
	}
	for _, v := range []wire.Version{{Major: 1}, {Major: 2}} {
		a := attributes{}
		a.reset()
		for got, err := range wire.Attributes(v, payload) {
			if err != nil || a.set(got) != nil {
				break
			}
		}
		if a.state > keys.DestroyedCompromised {
			t.Errorf("state %d", a.state)
		}
	}
}
