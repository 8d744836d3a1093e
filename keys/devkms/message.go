package devkms

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"
	"github.com/gemalto/kmip-go/ttlv"

	"vmcryptfs/keys/kmip/wire"
)

// maxBatch bounds the items of a request.
const maxBatch = 32

// A batch is a request being answered.
type batch struct {
	store       *store
	version     wire.Version
	now         time.Time
	maxAnswer   int    // bytes
	goOn        bool   // after a failed item
	placeholder string // the ID Placeholder (KMIP 1.4 §4)
}

// An outcome is the answer of an operation.
type outcome struct {
	payload  []ttlv.Value
	material []byte // replaces the zeros in payload; wiped afterwards
}

// answer builds the answer to a request message; the caller wipes both. An unreadable message
// gets an answer saying so. The error is an internal one.
func (s *Server) answer(request []byte) (answer []byte, err error) {
	b := &batch{store: s.store, now: time.Now(), maxAnswer: wire.MaxMessage}
	var items []ttlv.Value
	var secrets [][]byte
	defer func() {
		for _, secret := range secrets {
			clear(secret)
		}
	}()
	err = wire.Decode(request, func(message wire.Item) error {
		if err := b.header(message); err != nil {
			return err
		}
		for item := range message.Children() {
			if item.Tag() != kmip14.TagBatchItem {
				continue
			}
			value, material, failed := s.item(b, item)
			if material != nil {
				secrets = append(secrets, material)
			}
			items = append(items, value)
			if failed && !b.goOn {
				break
			}
		}
		return nil
	})
	if err != nil {
		return b.encode([]ttlv.Value{b.failed(nil, s.failure(err))}, nil)
	}
	return b.encode(items, secrets)
}

// header parses a request's header (KMIP 1.4 §7.2).
func (b *batch) header(message wire.Item) error {
	header, err := message.Struct(kmip14.TagRequestHeader)
	if err != nil {
		return err
	}
	asked, err := header.Struct(kmip14.TagProtocolVersion)
	if err != nil {
		return err
	}
	version, err := asked.AsVersion()
	if err != nil {
		return err
	}
	if !slices.Contains(wire.Versions(), version) {
		return failf(kmip20.ResultReasonUnsupportedProtocolVersion, "KMIP %s is not supported, %v are", version, wire.Versions())
	}
	b.version = version
	if asynchronous := header.Find(kmip14.TagAsynchronousIndicator); asynchronous.Present() && asynchronous.Raw()[7] != 0 {
		return failf(kmip20.ResultReasonFeatureNotSupported, "asynchronous answers are not supported")
	}
	if header.Find(kmip14.TagBatchErrorContinuationOption).Present() {
		option, err := header.Enum(kmip14.TagBatchErrorContinuationOption)
		if err != nil {
			return err
		}
		if kmip14.BatchErrorContinuationOption(option) == kmip14.BatchErrorContinuationOptionUndo {
			return failf(kmip20.ResultReasonFeatureNotSupported, "undoing a batch is not supported")
		}
		b.goOn = kmip14.BatchErrorContinuationOption(option) == kmip14.BatchErrorContinuationOptionContinue
	}
	if header.Find(kmip14.TagMaximumResponseSize).Present() {
		size, err := header.Int(kmip14.TagMaximumResponseSize)
		if err != nil {
			return err
		}
		b.maxAnswer = min(b.maxAnswer, int(size))
	}
	return b.count(header, message)
}

// count checks the number of items in the batch against the header.
func (b *batch) count(header, message wire.Item) error {
	count, err := header.Int(kmip14.TagBatchCount)
	if err != nil {
		return err
	}
	n := int32(0)
	for item := range message.Children() {
		if item.Tag() == kmip14.TagBatchItem {
			n++
		}
	}
	if n != count || n < 1 || n > maxBatch {
		return failf(kmip20.ResultReasonInvalidMessage, "%d batch items, %d announced, 1 to %d accepted", n, count, maxBatch)
	}
	return nil
}

// item does one operation. A failure is answered, not returned.
func (s *Server) item(b *batch, item wire.Item) (value ttlv.Value, material []byte, failed bool) {
	echo := []ttlv.Value{}
	code, err := item.Enum(kmip14.TagOperation)
	if err == nil {
		echo = append(echo, ttlv.NewValue(kmip14.TagOperation, kmip14.Operation(code)))
	}
	if id := item.Find(kmip14.TagUniqueBatchItemID); id.Type() == ttlv.TypeByteString {
		echo = append(echo, ttlv.NewValue(kmip14.TagUniqueBatchItemID, slices.Clone(id.Raw())))
	}
	var done outcome
	if err == nil {
		done, err = b.do(kmip14.Operation(code), item.Find(kmip14.TagRequestPayload))
	}
	if err != nil {
		clear(done.material)
		return b.failed(echo, s.failure(err)), nil, true
	}
	echo = append(echo, ttlv.NewValue(kmip14.TagResultStatus, kmip14.ResultStatusSuccess),
		ttlv.NewStruct(kmip14.TagResponsePayload, done.payload...))
	return ttlv.NewStruct(kmip14.TagBatchItem, echo...), done.material, false
}

// failure returns what a client learns of an error: all of a failure and of an unreadable
// message, nothing of an internal error.
func (s *Server) failure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if errors.Is(err, wire.ErrMalformed) {
		return failf(kmip20.ResultReasonInvalidMessage, "%v", err)
	}
	s.log.Error("development KMS", "error", err)
	return failf(kmip20.ResultReasonInternalServerError, "internal error, see the log of the development KMS")
}

func (b *batch) failed(echo []ttlv.Value, f *failure) ttlv.Value {
	return ttlv.NewStruct(kmip14.TagBatchItem, append(echo,
		ttlv.NewValue(kmip14.TagResultStatus, kmip14.ResultStatusOperationFailed),
		ttlv.NewValue(kmip14.TagResultReason, f.reasonIn(b.version)),
		ttlv.NewValue(kmip14.TagResultMessage, wire.Text(f.text)))...)
}

// encode encodes the answer and puts key material into the bytes.
func (b *batch) encode(items []ttlv.Value, secrets [][]byte) ([]byte, error) {
	version := b.version
	if version == (wire.Version{}) {
		version = wire.Version{Major: 1, Minor: 0} // the request's version was not understood; any client reads 1.0
	}
	frame, err := wire.Encode(ttlv.NewStruct(kmip14.TagResponseMessage, append([]ttlv.Value{
		ttlv.NewStruct(kmip14.TagResponseHeader,
			version.Value(),
			ttlv.NewValue(kmip14.TagTimeStamp, b.now.Truncate(time.Second)),
			ttlv.NewValue(kmip14.TagBatchCount, int32(len(items)))),
	}, items...)...))
	if err == nil && len(frame) > b.maxAnswer {
		b.maxAnswer = wire.MaxMessage
		return b.encode([]ttlv.Value{b.failed(nil,
			failf(kmip20.ResultReasonResponseTooLarge, "the answer has %d bytes", len(frame)))}, nil)
	}
	if err != nil || len(secrets) == 0 {
		return frame, err
	}
	if err := wire.SetMaterials(frame, secrets); err != nil {
		clear(frame)
		return nil, fmt.Errorf("put key material into an answer: %w", err)
	}
	return frame, nil
}
