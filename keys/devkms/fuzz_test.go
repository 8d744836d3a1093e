package devkms

import (
	"crypto/rand"
	"log/slog"
	"testing"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"
	"github.com/gemalto/kmip-go/ttlv"

	"vmcryptfs/keys/kmip/wire"
)

// FuzzAnswer: any request gets a well-formed answer, never a panic, and only the requested keys.
func FuzzAnswer(f *testing.F) {
	dir := f.TempDir()
	store, err := openStore(dir)
	if err != nil {
		f.Fatal(err)
	}
	s := &Server{store: store, log: slog.New(slog.DiscardHandler)}
	request := func(v wire.Version, operation kmip14.Operation, payload ...ttlv.Value) []byte {
		frame, err := wire.Encode(ttlv.NewStruct(kmip14.TagRequestMessage,
			ttlv.NewStruct(kmip14.TagRequestHeader, v.Value(), ttlv.NewValue(kmip14.TagBatchCount, int32(1))),
			ttlv.NewStruct(kmip14.TagBatchItem, ttlv.NewValue(kmip14.TagOperation, operation),
				ttlv.NewValue(kmip14.TagUniqueBatchItemID, []byte(rand.Text()[:8])),
				ttlv.NewStruct(kmip14.TagRequestPayload, payload...))))
		if err != nil {
			f.Fatal(err)
		}
		return frame
	}
	for _, v := range []wire.Version{{Major: 1, Minor: 4}, {Major: 2, Minor: 0}} {
		template, err := wire.Template(v, []wire.Attribute{wire.NameAttribute("a name"),
			{Name: "Cryptographic Algorithm", Value: kmip14.CryptographicAlgorithmAES},
			{Name: "Cryptographic Length", Value: int32(256)},
			{Name: "Cryptographic Usage Mask", Value: kmip14.CryptographicUsageMaskEncrypt}})
		if err != nil {
			f.Fatal(err)
		}
		kind := ttlv.NewValue(kmip14.TagObjectType, kmip14.ObjectTypeSymmetricKey)
		id := ttlv.NewValue(kmip14.TagUniqueIdentifier, wire.Text("none"))
		f.Add(request(v, kmip14.OperationCreate, kind, template))
		f.Add(request(v, kmip14.OperationRegister, kind, template, ttlv.NewStruct(kmip14.TagSymmetricKey,
			ttlv.NewStruct(kmip14.TagKeyBlock, ttlv.NewValue(kmip14.TagKeyFormatType, kmip14.KeyFormatTypeRaw),
				ttlv.NewStruct(kmip14.TagKeyValue, ttlv.NewValue(kmip14.TagKeyMaterial, make([]byte, 32)))))))
		f.Add(request(v, kmip14.OperationGet, id))
		f.Add(request(v, kmip14.OperationGetAttributes, id, ttlv.NewValue(kmip14.TagAttributeName, wire.Text("State"))))
		f.Add(request(v, kmip14.OperationGetAttributes, id, ttlv.NewValue(kmip20.TagAttributeReference, ttlv.EnumValue(kmip14.TagState))))
		f.Add(request(v, kmip14.OperationLocate, template))
		f.Add(request(v, kmip14.OperationRevoke, id, ttlv.NewStruct(kmip14.TagRevocationReason,
			ttlv.NewValue(kmip14.TagRevocationReasonCode, kmip14.RevocationReasonCodeSuperseded))))
		f.Add(request(v, kmip14.OperationQuery, ttlv.NewValue(kmip14.TagQueryFunction, kmip14.QueryFunctionQueryOperations)))
		f.Add(request(v, kmip14.OperationDiscoverVersions, v.Value()))
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		answer, err := s.answer(request)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		err = wire.Decode(answer, func(message wire.Item) error {
			header, err := message.Struct(kmip14.TagResponseHeader)
			if err != nil {
				return err
			}
			count, err := header.Int(kmip14.TagBatchCount)
			if err != nil || count < 1 || count > maxBatch {
				t.Errorf("%d items, %v", count, err)
			}
			return nil
		})
		if err != nil || len(answer) > wire.MaxMessage {
			t.Errorf("an answer of %d bytes: %v", len(answer), err)
		}
	})
}
