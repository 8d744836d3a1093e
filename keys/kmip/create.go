package kmip

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gemalto/kmip-go/kmip14"
	"github.com/gemalto/kmip-go/kmip20"

	"vmcryptfs/keys"
	"vmcryptfs/keys/kmip/wire"
)

// DatastoreAttribute is the custom attribute with the datastore of a KEK, on servers that accept
// custom attributes.
const DatastoreAttribute = "x-vmcryptfs-datastore"

// Label is the Name of a datastore's n-th KEK.
func Label(datastore string, n int) string { return fmt.Sprintf("vmcryptfs-%s-%d", datastore, n) }

// PlaceLabel is the Name of the n-th KEK of a place of a datastore; place has no hyphen.
func PlaceLabel(datastore, place string, n uint64) string {
	return fmt.Sprintf("vmcryptfs-%s-%s.%d", datastore, place, n)
}

// labelDatastore is the datastore in a Label or PlaceLabel, empty in another name.
func labelDatastore(label string) string {
	rest, ok := strings.CutPrefix(label, "vmcryptfs-")
	end := strings.LastIndexByte(rest, '-')
	if !ok || end < 0 {
		return ""
	}
	return rest[:end]
}

// templates returns the attributes to request for a new key, the fullest list first. Each later
// list leaves out or changes attributes refused by some servers: custom attributes, and
// encryption as the use of a wrapping key.
func templates(label string) [][]wire.Attribute {
	of := func(usage kmip14.CryptographicUsageMask, more ...wire.Attribute) []wire.Attribute {
		return append([]wire.Attribute{
			{Name: "Cryptographic Algorithm", Value: kmip14.CryptographicAlgorithmAES},
			{Name: "Cryptographic Length", Value: int32(kekBits)},
			{Name: "Cryptographic Usage Mask", Value: usage},
			wire.NameAttribute(label),
		}, more...)
	}
	const crypt = kmip14.CryptographicUsageMaskEncrypt | kmip14.CryptographicUsageMaskDecrypt
	const wrap = kmip14.CryptographicUsageMaskWrapKey | kmip14.CryptographicUsageMaskUnwrapKey
	all := [][]wire.Attribute{of(crypt), of(wrap)}
	if datastore := labelDatastore(label); datastore != "" {
		full := of(crypt, wire.Attribute{Name: DatastoreAttribute, Value: wire.Text(datastore)})
		all = append([][]wire.Attribute{full}, all...)
	}
	return all
}

// Create makes a new KEK with this Name, activates the KEK and reads it back: the returned key
// has the right algorithm, length and state at the KMS. label must be unique at the KMS (else
// keys.ErrNameTaken): after a lost answer Create searches for the key by label.
// keys.ErrServersDiffer means that a server has another key under the new identifier.
func (p *Provider) Create(ctx context.Context, label string) (*keys.KEK, error) {
	return p.make(ctx, "Create", label, func(ctx context.Context, s *session, a []wire.Attribute) (string, error) {
		return s.create(ctx, a)
	})
}

// Import registers key material made elsewhere, 32 bytes, as a KEK; otherwise as
// Create. The caller wipes material.
func (p *Provider) Import(ctx context.Context, label string, material []byte) (*keys.KEK, error) {
	if len(material) != kekBits/8 {
		return nil, fmt.Errorf("provider %s: import: %w: it has %d bits", p.Name(), keys.ErrKeyLength, 8*len(material))
	}
	return p.make(ctx, "Register", label, func(ctx context.Context, s *session, a []wire.Attribute) (string, error) {
		return s.register(ctx, a, material)
	})
}

// A maker makes a key with the given attributes on a server, and returns the key's identifier.
type maker func(context.Context, *session, []wire.Attribute) (string, error)

func (p *Provider) make(ctx context.Context, operation, label string, maker maker) (*keys.KEK, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cluster().config.timeout())
	defer cancel()
	id, err := p.makeOnce(ctx, operation, label, maker)
	if nameRefused(err) {
		err = fmt.Errorf("%w: %w", keys.ErrNameTaken, err)
	}
	if err != nil {
		return nil, fmt.Errorf("provider %s: key %q: %w", p.Name(), label, err)
	}
	kek, err := p.finish(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("provider %s: new key %q (%q): %w", p.Name(), id, label, err)
	}
	return kek, nil
}

// makeOnce makes the key on the first server able to. After a lost answer the key may exist:
// makeOnce searches by name on every reachable server, and makes the key again only when all
// report none. A slow server may still have made the key, and then refuses the name.
func (p *Provider) makeOnce(ctx context.Context, operation, label string, maker maker) (id string, err error) {
	made := search{name: label, since: time.Now()}
	lost := false
	for range p.cluster().servers {
		err = p.cluster().try(ctx, attempt{operation, "", false, func(ctx context.Context, s *session) error {
			id, err = makeOn(ctx, s, label, maker)
			return err
		}})
		failed, ok := errors.AsType[*Error](err)
		if !ok || !failed.lost && !(lost && nameRefused(err)) {
			return id, err
		}
		lost = true
		id, errFind := p.findNew(ctx, made, failed.Server)
		if id != "" {
			return id, nil
		}
		if errFind != nil {
			return "", fmt.Errorf("%w (whether the key was made is not known: %w)", err, errFind)
		}
	}
	return "", err
}

// makeOn makes the key on one server with the fullest template accepted.
func makeOn(ctx context.Context, s *session, label string, maker maker) (id string, err error) {
	for _, template := range templates(label) {
		id, err = maker(ctx, s, template)
		if err == nil || !templateRefused(err) {
			return id, err
		}
	}
	return id, err
}

// templateRefused reports whether a result may concern an attribute. Results about the client or
// the server are excluded.
func templateRefused(err error) bool {
	r, ok := errors.AsType[*result](err)
	return ok && r.status == kmip14.ResultStatusOperationFailed && !reasonIs(err,
		kmip20.ResultReasonAuthenticationNotSuccessful, kmip20.ResultReasonNotAuthorized,
		kmip20.ResultReasonOperationNotSupported, kmip20.ResultReasonObjectAlreadyExists,
		kmip20.ResultReasonNonUniqueNameAttribute)
}

// nameRefused reports whether a result may mean a taken name. KMIP 1.4 §11.2 prescribes Invalid
// Field for a taken name, as for many other faults.
func nameRefused(err error) bool {
	return reasonIs(err, kmip20.ResultReasonNonUniqueNameAttribute, kmip20.ResultReasonObjectAlreadyExists,
		kmip20.ResultReasonInvalidField)
}

// finish activates a key made by this host and reads the key back. Servers of another KMS may
// have a key under the same identifier.
func (p *Provider) finish(ctx context.Context, id string) (kek *keys.KEK, err error) {
	err = p.cluster().try(ctx, attempt{"Activate", id, true, func(ctx context.Context, s *session) error {
		// The key may be active already, by a request with a lost answer: a second activation
		// would fail.
		a, err := s.getAttributes(ctx, id)
		if err != nil {
			return err
		}
		if err := a.check(); err != nil {
			return err
		}
		if a.state == keys.PreActive {
			return s.activate(ctx, id)
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	err = p.cluster().try(ctx, attempt{"Get", id, true, func(ctx context.Context, s *session) (err error) {
		var a attributes
		kek, a, err = p.fetch(ctx, s, id)
		if err == nil && a.state != keys.Active {
			kek.Wipe()
			kek, err = nil, &stateError{state: a.state}
		}
		return err
	}})
	if err != nil {
		return nil, err
	}
	check := kek.CheckValue()
	if _, err := p.agree(ctx, id, &check); err != nil {
		kek.Wipe()
		return nil, err
	}
	return kek, nil
}
