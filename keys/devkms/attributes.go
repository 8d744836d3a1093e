package devkms

import (
	"slices"
	"strings"
	"time"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"
	"github.com/gemalto/kmip-go/ttlv"

	"vmcryptfs/keys/kmip/wire"
)

// newObject makes an object from the attributes in a Create or Register request. An attribute
// that this server does not keep is refused.
func (b *batch) newObject(payload wire.Item) (*object, error) {
	kind, err := payload.Enum(kmip14.TagObjectType)
	if err != nil {
		return nil, err
	}
	if kmip14.ObjectType(kind) != kmip14.ObjectTypeSymmetricKey {
		return nil, failf(kmip20.ResultReasonInvalidField, "objects of type %s are not supported", kmip14.ObjectType(kind))
	}
	template, err := payload.Struct(wire.TemplateTag(b.version))
	if err != nil {
		return nil, failf(kmip20.ResultReasonMissingData, "no %s", wire.TemplateTag(b.version))
	}
	o := &object{State: 1, Custom: map[string]string{}}
	for got, err := range wire.Attributes(b.version, template) {
		if err == nil {
			err = o.take(got)
		}
		if err != nil {
			return nil, err
		}
	}
	if o.Usage == 0 {
		return nil, failf(kmip20.ResultReasonMissingData, "no Cryptographic Usage Mask")
	}
	return o, nil
}

// maxNames bounds the names, and the custom attributes, of a key.
const maxNames = 16

// take takes over one attribute of a new key.
func (o *object) take(got wire.GotAttribute) (err error) {
	switch {
	case got.Name == "Cryptographic Algorithm":
		var code uint32
		code, err = got.Value.AsEnum()
		o.Algorithm = number(code)
	case got.Name == "Cryptographic Length":
		o.Bits, err = got.Value.AsInt()
	case got.Name == "Cryptographic Usage Mask":
		var mask int32
		mask, err = got.Value.AsInt()
		o.Usage = number(mask)
	case got.Name == "Name":
		var name string
		if name, err = got.Value.Text(kmip14.TagNameValue); err == nil {
			o.Names = append(o.Names, name)
		}
	case strings.HasPrefix(got.Name, "x-"):
		o.Custom[got.Name], err = got.Value.AsText()
	default:
		return failf(kmip20.ResultReasonUnsupportedAttribute, "attribute %q is not supported", got.Name)
	}
	if err == nil && (len(o.Names) > maxNames || len(o.Custom) > maxNames) {
		err = failf(kmip20.ResultReasonInvalidField, "more than %d names or custom attributes", maxNames)
	}
	return err
}

// attributes returns the attributes kept of a key, in the order of KMIP 1.4 §3.
func (o *object) attributes() []wire.Attribute {
	list := []wire.Attribute{{Name: "Unique Identifier", Value: wire.Text(o.ID)}}
	for _, name := range o.Names {
		list = append(list, wire.NameAttribute(name))
	}
	list = append(list,
		wire.Attribute{Name: "Object Type", Value: kmip14.ObjectTypeSymmetricKey},
		wire.Attribute{Name: "Cryptographic Algorithm", Value: kmip14.CryptographicAlgorithm(o.Algorithm)},
		wire.Attribute{Name: "Cryptographic Length", Value: o.Bits},
		wire.Attribute{Name: "Cryptographic Usage Mask", Value: kmip14.CryptographicUsageMask(o.Usage)},
		wire.Attribute{Name: "State", Value: kmip14.State(o.State)})
	for _, date := range []struct {
		name string
		at   time.Time
	}{
		{"Initial Date", o.Initial}, {"Activation Date", o.Activated}, {"Deactivation Date", o.Deactivated},
		{"Destroy Date", o.Destroyed}, {"Compromise Date", o.Compromised}, {"Last Change Date", o.Changed},
	} {
		if !date.at.IsZero() {
			list = append(list, wire.Attribute{Name: date.name, Value: date.at.Truncate(time.Second)})
		}
	}
	for name, text := range o.Custom {
		list = append(list, wire.Attribute{Name: name, Value: wire.Text(text)})
	}
	return list
}

// getAttributes answers with the requested attributes, or all (KMIP 1.4 §4.12). Attributes absent
// from the key are left out.
func (b *batch) getAttributes(payload wire.Item) (outcome, error) {
	id, err := b.id(payload)
	if err != nil {
		return outcome{}, err
	}
	o, err := b.store.find(id)
	if err != nil {
		return outcome{}, err
	}
	names, err := askedNames(payload)
	if err != nil {
		return outcome{}, err
	}
	all := o.attributes()
	if len(names) > 0 {
		all = slices.DeleteFunc(all, func(a wire.Attribute) bool { return !slices.Contains(names, a.Name) })
	}
	list, err := wire.AttributeList(b.version, all)
	if err != nil {
		return outcome{}, err
	}
	if b.version.Major >= 2 {
		return identified(id, ttlv.NewStruct(kmip20.TagAttributes, list...)), nil
	}
	return identified(id, list...), nil
}

// askedNames are the names in a Get Attributes request: text strings, from 2.0 on the
// tags of standard attributes and the names of custom ones.
func askedNames(payload wire.Item) (names []string, err error) {
	for child := range payload.Children() {
		var name string
		switch {
		case child.Tag() == kmip14.TagAttributeName:
			name, err = child.AsText()
		case child.Tag() == kmip20.TagAttributeReference && child.Type() == ttlv.TypeEnumeration:
			var tag uint32
			tag, err = child.AsEnum()
			name = wire.AttributeName(ttlv.Tag(tag))
		case child.Tag() == kmip20.TagAttributeReference:
			name, err = child.Text(kmip14.TagAttributeName)
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// locate finds the keys with all the requested attributes (KMIP 1.4 §4.9), the oldest first,
// without destroyed keys.
func (b *batch) locate(payload wire.Item) (outcome, error) {
	var tests []func(*object) bool
	for got, err := range wire.Attributes(b.version, payload) {
		if err != nil {
			return outcome{}, err
		}
		test, err := matcher(got)
		if err != nil {
			return outcome{}, err
		}
		tests = append(tests, test)
	}
	most, skip := 1000, 0
	for tag, to := range map[ttlv.Tag]*int{kmip14.TagMaximumItems: &most, kmip14.TagOffsetItems: &skip} {
		if payload.Find(tag).Present() {
			n, err := payload.Int(tag)
			if err != nil {
				return outcome{}, err
			}
			*to = min(int(max(n, 0)), 1000)
		}
	}
	var ids []string
	for _, o := range b.store.all() {
		fits := !o.destroyed() && !slices.ContainsFunc(tests, func(test func(*object) bool) bool { return !test(o) })
		if fits {
			ids = append(ids, o.ID)
		}
	}
	if len(ids) == 1 {
		b.placeholder = ids[0]
	}
	ids = ids[min(skip, len(ids)):]
	var done outcome
	for _, id := range ids[:min(most, len(ids))] {
		done.payload = append(done.payload, ttlv.NewValue(kmip14.TagUniqueIdentifier, wire.Text(id)))
	}
	return done, nil
}

// matcher returns the test meant by an attribute in a Locate request.
func matcher(got wire.GotAttribute) (func(*object) bool, error) {
	switch {
	case got.Name == "Name":
		name, err := got.Value.Text(kmip14.TagNameValue)
		return func(o *object) bool { return o.named(name) }, err
	case got.Name == "State":
		code, err := got.Value.AsEnum()
		return func(o *object) bool { return uint32(o.State) == code }, err
	case got.Name == "Object Type":
		code, err := got.Value.AsEnum()
		return func(*object) bool { return kmip14.ObjectType(code) == kmip14.ObjectTypeSymmetricKey }, err
	case got.Name == "Cryptographic Algorithm":
		code, err := got.Value.AsEnum()
		return func(o *object) bool { return uint32(o.Algorithm) == code }, err
	case got.Name == "Cryptographic Length":
		bits, err := got.Value.AsInt()
		return func(o *object) bool { return o.Bits == bits }, err
	case got.Name == "Unique Identifier":
		id, err := got.Value.AsText()
		return func(o *object) bool { return o.ID == id }, err
	case strings.HasPrefix(got.Name, "x-"):
		text, err := got.Value.AsText()
		return func(o *object) bool { return o.Custom[got.Name] == text && text != "" }, err
	}
	return nil, failf(kmip20.ResultReasonUnsupportedAttribute, "keys are not found by attribute %q", got.Name)
}
