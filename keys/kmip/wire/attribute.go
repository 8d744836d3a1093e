package wire

import (
	"fmt"
	"iter"
	"strings"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"
	"github.com/gemalto/kmip-go/ttlv"
)

// Attribute is an attribute of a managed object, for sending. Up to KMIP 1.4 an attribute travels
// as a pair of a name and a value, from 2.0 on under a tag of its own.
type Attribute struct {
	Name  string // canonical, "Cryptographic Length"; "x-…" or "y-…" for a custom one
	Value any    // any type accepted by ttlv.Value
}

// Vendor identifies custom attributes in KMIP 2.0, where "x-" names are unknown.
const Vendor = "vmcryptfs"

// customAttribute reports whether a name was made up by a client ("x-") or a server ("y-").
func customAttribute(name string) bool {
	return strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "y-")
}

// AttributeTag returns the tag of the standard attribute with this canonical name.
func AttributeTag(name string) (ttlv.Tag, error) {
	tag, err := ttlv.DefaultRegistry.ParseTag(ttlv.NormalizeName(name))
	if err != nil {
		return 0, fmt.Errorf("attribute %q: unknown name", name)
	}
	return tag, nil
}

// AttributeName returns the canonical name of the attribute with this tag.
func AttributeName(tag ttlv.Tag) string {
	// The library has two spaces in "Compromise Date".
	return strings.Join(strings.Fields(tag.CanonicalName()), " ")
}

// NameAttribute is the Name attribute (KMIP 1.4 §3.2) with an uninterpreted text.
func NameAttribute(name string) Attribute {
	return Attribute{"Name", ttlv.Values{
		ttlv.NewValue(kmip14.TagNameValue, Text(name)),
		ttlv.NewValue(kmip14.TagNameType, kmip14.NameTypeUninterpretedTextString),
	}}
}

// value returns the attribute as sent by version v.
func (a Attribute) value(v Version) (ttlv.Value, error) {
	if v.Major < 2 {
		return ttlv.NewStruct(kmip14.TagAttribute,
			ttlv.NewValue(kmip14.TagAttributeName, Text(a.Name)),
			ttlv.NewValue(kmip14.TagAttributeValue, a.Value)), nil
	}
	if customAttribute(a.Name) {
		return ttlv.NewStruct(kmip14.TagAttribute,
			ttlv.NewValue(kmip14.TagVendorIdentification, Text(Vendor)),
			ttlv.NewValue(kmip14.TagAttributeName, Text(a.Name)),
			ttlv.NewValue(kmip14.TagAttributeValue, a.Value)), nil
	}
	tag, err := AttributeTag(a.Name)
	if err != nil {
		return ttlv.Value{}, err
	}
	return ttlv.NewValue(tag, a.Value), nil
}

// AttributeList returns the attributes in a row, as sent by version v.
func AttributeList(v Version, attributes []Attribute) ([]ttlv.Value, error) {
	list := make([]ttlv.Value, 0, len(attributes))
	for _, a := range attributes {
		value, err := a.value(v)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return list, nil
}

// Template returns the attributes as version v sends them to Create and Register: a
// Template-Attribute, from 2.0 on Attributes.
func Template(v Version, attributes []Attribute) (ttlv.Value, error) {
	list, err := AttributeList(v, attributes)
	if err != nil {
		return ttlv.Value{}, err
	}
	if v.Major < 2 {
		return ttlv.NewStruct(kmip14.TagTemplateAttribute, list...), nil
	}
	return ttlv.NewStruct(kmip20.TagAttributes, list...), nil
}

// TemplateTag is the tag of Template in version v.
func TemplateTag(v Version) ttlv.Tag {
	if v.Major < 2 {
		return kmip14.TagTemplateAttribute
	}
	return kmip20.TagAttributes
}

// Attributes iterates over the names and values of the attributes in parent: the pairs among
// parent's children, and in version 2.0 the children of the Attributes there. A malformed
// attribute ends the sequence with an error.
func Attributes(v Version, parent Item) iter.Seq2[GotAttribute, error] {
	return func(yield func(GotAttribute, error) bool) {
		if v.Major >= 2 && parent.Tag() != kmip20.TagAttributes {
			parent = parent.Find(kmip20.TagAttributes)
		}
		for child := range parent.Children() {
			var got GotAttribute
			var err error
			switch {
			case child.Tag() == kmip14.TagAttribute:
				got.Name, err = child.Text(kmip14.TagAttributeName)
				got.Value = child.Find(kmip14.TagAttributeValue)
				if err == nil && !got.Value.Present() {
					err = Malformed("attribute %q has no value", got.Name)
				}
			case v.Major >= 2:
				got = GotAttribute{AttributeName(child.Tag()), child}
			default:
				continue
			}
			if !yield(got, err) || err != nil {
				return
			}
		}
	}
}

// GotAttribute is an attribute received.
type GotAttribute struct {
	Name  string // canonical
	Value Item
}
