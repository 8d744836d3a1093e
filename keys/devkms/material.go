package devkms

import (
	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"
	"github.com/gemalto/kmip-go/ttlv"

	"vmcryptfs/keys/kmip/wire"
)

// maxMaterial bounds a registered key, in bytes.
const maxMaterial = 512

// register takes a raw symmetric key made elsewhere (KMIP 1.4 §4.3).
func (b *batch) register(payload wire.Item) (outcome, error) {
	o, err := b.newObject(payload)
	if err != nil {
		return outcome{}, err
	}
	block, err := rawBlock(payload)
	if err != nil {
		return outcome{}, err
	}
	value, err := block.Struct(kmip14.TagKeyValue)
	if err != nil {
		return outcome{}, err
	}
	material, err := value.Bytes(kmip14.TagKeyMaterial) // in the request's own buffer
	if err != nil {
		return outcome{}, err
	}
	if err := o.agree(block, len(material)); err != nil {
		return outcome{}, err
	}
	return b.add(payload, o, material)
}

// rawBlock is the key block of a Register request.
func rawBlock(payload wire.Item) (wire.Item, error) {
	key, err := payload.Struct(kmip14.TagSymmetricKey)
	if err != nil {
		return wire.Item{}, err
	}
	block, err := key.Struct(kmip14.TagKeyBlock)
	if err != nil {
		return wire.Item{}, err
	}
	if block.Find(kmip14.TagKeyWrappingData).Present() {
		return wire.Item{}, failf(kmip20.ResultReasonFeatureNotSupported, "wrapped keys are not supported")
	}
	format, err := block.Enum(kmip14.TagKeyFormatType)
	if err == nil && kmip14.KeyFormatType(format) != kmip14.KeyFormatTypeRaw {
		err = failf(kmip20.ResultReasonKeyFormatTypeNotSupported, "raw keys are registered")
	}
	return block, err
}

// agree takes algorithm and length of a registered key from the key block where the attributes
// have none. Values from both sources, and the n bytes of material, must agree.
func (o *object) agree(block wire.Item, n int) error {
	algorithm, bits := o.Algorithm, o.Bits
	if block.Find(kmip14.TagCryptographicAlgorithm).Present() {
		code, err := block.Enum(kmip14.TagCryptographicAlgorithm)
		if err != nil {
			return err
		}
		algorithm = number(code)
	}
	if block.Find(kmip14.TagCryptographicLength).Present() {
		var err error
		if bits, err = block.Int(kmip14.TagCryptographicLength); err != nil {
			return err
		}
	}
	if o.Algorithm == 0 {
		o.Algorithm = algorithm
	}
	if o.Bits == 0 {
		o.Bits = bits
	}
	switch {
	case o.Algorithm == 0 || o.Bits == 0:
		return failf(kmip20.ResultReasonMissingData, "no Cryptographic Algorithm or Length")
	case algorithm != o.Algorithm || bits != o.Bits || n*8 != int(o.Bits) || n > maxMaterial:
		return failf(kmip20.ResultReasonInvalidField, "key block, attributes and key material do not agree")
	}
	return nil
}

// get hands out a key with bytes left, in any state (KMIP 1.4 §4.11).
func (b *batch) get(payload wire.Item) (outcome, error) {
	id, err := b.id(payload)
	if err != nil {
		return outcome{}, err
	}
	o, err := b.store.find(id)
	if err != nil {
		return outcome{}, err
	}
	if o.destroyed() {
		return outcome{}, failf(kmip20.ResultReasonObjectDestroyed, "the key was destroyed on %s",
			o.Destroyed.UTC().Format("2006-01-02 15:04 UTC"))
	}
	format, err := wantedFormat(payload)
	if err != nil {
		return outcome{}, err
	}
	key := ttlv.NewValue(kmip14.TagKeyMaterial, make([]byte, o.Bits/8)) // to be filled
	if format == kmip14.KeyFormatTypeTransparentSymmetricKey {
		key = ttlv.NewStruct(kmip14.TagKeyMaterial, ttlv.NewValue(kmip14.TagKey, key.Value))
	}
	material, err := b.store.material(id)
	if err != nil {
		return outcome{}, err
	}
	return outcome{[]ttlv.Value{
		ttlv.NewValue(kmip14.TagObjectType, kmip14.ObjectTypeSymmetricKey),
		ttlv.NewValue(kmip14.TagUniqueIdentifier, wire.Text(id)),
		ttlv.NewStruct(kmip14.TagSymmetricKey, ttlv.NewStruct(kmip14.TagKeyBlock,
			ttlv.NewValue(kmip14.TagKeyFormatType, format),
			ttlv.NewStruct(kmip14.TagKeyValue, key),
			ttlv.NewValue(kmip14.TagCryptographicAlgorithm, kmip14.CryptographicAlgorithm(o.Algorithm)),
			ttlv.NewValue(kmip14.TagCryptographicLength, o.Bits))),
	}, material}, nil
}

// wantedFormat returns the key format requested by a Get.
func wantedFormat(payload wire.Item) (kmip14.KeyFormatType, error) {
	for _, tag := range []ttlv.Tag{kmip14.TagKeyWrappingSpecification, kmip14.TagKeyWrapType, kmip14.TagKeyCompressionType} {
		if payload.Find(tag).Present() {
			return 0, failf(kmip20.ResultReasonFeatureNotSupported, "%s is not supported", tag)
		}
	}
	if !payload.Find(kmip14.TagKeyFormatType).Present() {
		return kmip14.KeyFormatTypeRaw, nil
	}
	code, err := payload.Enum(kmip14.TagKeyFormatType)
	if err != nil {
		return 0, err
	}
	switch format := kmip14.KeyFormatType(code); format {
	case kmip14.KeyFormatTypeRaw, kmip14.KeyFormatTypeTransparentSymmetricKey:
		return format, nil
	default:
		return 0, failf(kmip20.ResultReasonKeyFormatTypeNotSupported, "key format %s is not supported", format)
	}
}
